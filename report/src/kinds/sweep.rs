//! A sweep.

use serde_json::Value;

use crate::{
    file::sweep,
    kinds::{ResultKind, Shown},
    page::{model::Page, sweep::page},
    saved::{
        error::FileError,
        place::{Place, typed},
    },
    text::sweep::text,
};

pub(super) use crate::file::sweep::SweepFile;

impl ResultKind for SweepFile {
    const SCHEMA: &'static str = sweep::SCHEMA;
    const FILE_NAME: &'static str = sweep::FILE_NAME;

    fn load(file: Value, place: &mut Place<'_>) -> Result<Self, FileError> {
        typed(file, place.file)
    }
}

impl Shown for SweepFile {
    fn text(&self) -> String {
        text(self)
    }

    fn page(&self) -> Page {
        page(self)
    }
}
