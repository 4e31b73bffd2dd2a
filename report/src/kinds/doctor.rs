//! The doctor's findings.

use serde_json::Value;

use crate::{
    file::doctor,
    kinds::{ResultKind, Shown},
    page::{doctor::page, model::Page},
    saved::{
        error::FileError,
        place::{Place, typed},
    },
    text::doctor::text,
};

pub(super) use crate::file::doctor::Examination;

impl ResultKind for Examination {
    const SCHEMA: &'static str = doctor::SCHEMA;
    const FILE_NAME: &'static str = doctor::FILE_NAME;

    fn load(file: Value, place: &mut Place<'_>) -> Result<Self, FileError> {
        typed(file, place.file)
    }
}

impl Shown for Examination {
    fn text(&self) -> String {
        text(self)
    }

    fn page(&self) -> Page {
        page(self)
    }
}
