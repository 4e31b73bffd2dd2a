//! A search for the highest rate.

use serde_json::Value;

use crate::{
    file::find_rate,
    kinds::{ResultKind, Shown},
    page::{find_rate::page, model::Page},
    saved::{
        error::FileError,
        place::{Place, typed},
    },
    text::find_rate::text,
};

pub(super) use crate::file::find_rate::FindRateFile;

impl ResultKind for FindRateFile {
    const SCHEMA: &'static str = find_rate::SCHEMA;
    const FILE_NAME: &'static str = find_rate::FILE_NAME;

    fn load(file: Value, place: &mut Place<'_>) -> Result<Self, FileError> {
        typed(file, place.file)
    }
}

impl Shown for FindRateFile {
    fn text(&self) -> String {
        text(self)
    }

    fn page(&self) -> Page {
        page(self)
    }
}
