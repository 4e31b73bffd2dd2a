//! What disturbs the cpus.

use serde_json::Value;

use crate::{
    file::jitter,
    kinds::{ResultKind, Shown},
    page::{jitter::page, model::Page},
    saved::{
        error::FileError,
        place::{Place, typed},
    },
    text::jitter::text,
};

pub(super) use crate::file::jitter::JitterFile;

impl ResultKind for JitterFile {
    const SCHEMA: &'static str = jitter::SCHEMA;
    const FILE_NAME: &'static str = jitter::FILE_NAME;

    fn load(file: Value, place: &mut Place<'_>) -> Result<Self, FileError> {
        typed(file, place.file)
    }
}

impl Shown for JitterFile {
    fn text(&self) -> String {
        text(self)
    }

    fn page(&self) -> Page {
        page(self)
    }
}
