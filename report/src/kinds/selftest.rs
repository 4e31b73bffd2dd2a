//! Truths, and what was shown of them.

use serde_json::Value;

use crate::{
    file::selftest,
    kinds::{ResultKind, Shown},
    page::{model::Page, selftest::page},
    saved::{
        error::FileError,
        place::{Place, typed},
    },
    text::selftest::text,
};

pub(super) use crate::file::selftest::Selftest;

impl ResultKind for Selftest {
    const SCHEMA: &'static str = selftest::SCHEMA;
    const FILE_NAME: &'static str = selftest::FILE_NAME;

    fn load(file: Value, place: &mut Place<'_>) -> Result<Self, FileError> {
        typed(file, place.file)
    }
}

impl Shown for Selftest {
    fn text(&self) -> String {
        text(self)
    }

    fn page(&self) -> Page {
        page(self)
    }
}
