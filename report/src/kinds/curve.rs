//! A load curve.

use serde_json::Value;

use crate::{
    file::curve,
    kinds::{ResultKind, Shown},
    page::{curve::page, model::Page},
    saved::{
        error::FileError,
        place::{Place, typed},
    },
    text::curve::text,
};

pub(super) use crate::file::curve::CurveFile;

impl ResultKind for CurveFile {
    const SCHEMA: &'static str = curve::SCHEMA;
    const FILE_NAME: &'static str = curve::FILE_NAME;

    fn load(file: Value, place: &mut Place<'_>) -> Result<Self, FileError> {
        typed(file, place.file)
    }
}

impl Shown for CurveFile {
    fn text(&self) -> String {
        text(self)
    }

    fn page(&self) -> Page {
        page(self)
    }
}
