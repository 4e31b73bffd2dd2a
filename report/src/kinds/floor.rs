//! What an echo costs the kernel at least.

use serde_json::Value;

use crate::{
    file::floor,
    kinds::{ResultKind, Shown},
    page::{floor::page, model::Page},
    saved::{
        error::FileError,
        place::{Place, typed},
    },
    text::floor::text,
};

pub(super) use crate::file::floor::FloorFile;

impl ResultKind for FloorFile {
    const SCHEMA: &'static str = floor::SCHEMA;
    const FILE_NAME: &'static str = floor::FILE_NAME;

    fn load(file: Value, place: &mut Place<'_>) -> Result<Self, FileError> {
        typed(file, place.file)
    }
}

impl Shown for FloorFile {
    fn text(&self) -> String {
        text(self)
    }

    fn page(&self) -> Page {
        page(self)
    }
}
