// SPDX-License-Identifier: Apache-2.0
//! Image records: a name and what it points to.

use std::time::SystemTime;

use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest, UpdateImageRequest,
};

use super::connection::Store;
use super::convert;
use super::error::StoreError;
use super::labels::{self, Labels};
use crate::image::{Descriptor, ImageReference};

/// How often an update and a removal by somebody else may alternate before that is an error.
pub(super) const ATTEMPTS: u32 = 5;

/// An image record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// The full name, or `sha256:<config>` for a record that CRI made by itself.
    pub name: String,
    /// The manifest or index.
    pub target: Descriptor,
    /// The record's labels.
    pub labels: Labels,
    /// When the record was last written.
    pub updated_at: Option<SystemTime>,
}

/// What became of a request to set an image's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageOutcome {
    /// The name is new.
    Created,
    /// The name was there and now points to the target.
    Updated,
}

impl Store {
    /// The record of an image by its full name; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn image(&self, name: &str) -> Result<Option<ImageRecord>, StoreError> {
        const OPERATION: &str = "read image";
        let request = GetImageRequest { name: name.to_owned() };
        let answer = match self.images_client().get(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                let error = self.failed(OPERATION, name, status);
                return if error.is_not_found() { Ok(None) } else { Err(error) };
            }
        };
        let malformed =
            |detail| StoreError::Answer { operation: OPERATION, subject: name.to_owned(), detail };
        let image = answer.image.ok_or_else(|| malformed("no image".to_owned()))?;
        convert::to_image(image).map(Some).map_err(malformed)
    }

    /// The records that one of containerd's filters matches; all of them without a filter.
    ///
    /// A record that this builder cannot represent (a target with another digest algorithm) is left out with a warning:
    /// it is not one of ours.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn images(&self, filters: &[&str]) -> Result<Vec<ImageRecord>, StoreError> {
        let request = ListImagesRequest { filters: filters.iter().map(ToString::to_string).collect() };
        let answer = self.images_client().list(request).await;
        let images = answer.map_err(|status| self.failed("list", "images", status))?.into_inner().images;
        Ok(images
            .into_iter()
            .filter_map(|image| {
                let name = image.name.clone();
                convert::to_image(image)
                    .inspect_err(|detail| tracing::warn!(name, detail, "image record left out"))
                    .ok()
            })
            .collect())
    }

    /// Points a name to `target` and sets `labels` on it, besides the label that makes it CRI's.
    ///
    /// Labels of a record that is there already and are not named stay: they may be somebody else's.
    ///
    /// # Errors
    /// [`StoreError::Contended`] when the record is removed again and again; else as for every call.
    pub async fn set_image(
        &self,
        name: &ImageReference,
        target: &Descriptor,
        labels: &Labels,
    ) -> Result<ImageOutcome, StoreError> {
        const OPERATION: &str = "set image";
        let name = name.to_string();
        let mut labels = labels.clone();
        labels.insert(labels::CRI_IMAGE.to_owned(), labels::CRI_MANAGED.to_owned());
        self.checked(OPERATION, &name, &labels)?;
        let target = convert::to_wire_descriptor(target).map_err(|detail| StoreError::Answer {
            operation: OPERATION,
            subject: name.clone(),
            detail,
        })?;
        let image = Image {
            name: name.clone(),
            labels: convert::to_wire_labels(&labels),
            target: Some(target),
            created_at: None,
            updated_at: None,
        };
        for _ in 0..ATTEMPTS {
            let create = CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
            match self.images_client().create(create).await {
                Ok(_) => return Ok(ImageOutcome::Created),
                Err(status) => {
                    let error = self.failed(OPERATION, &name, status);
                    if !error.is_already_exists() {
                        return Err(error);
                    }
                }
            }
            let mut mask = convert::label_mask(labels.keys().map(String::as_str));
            mask.paths.push("target".to_owned());
            let update = UpdateImageRequest {
                image: Some(image.clone()),
                update_mask: Some(mask),
                source_date_epoch: None,
            };
            match self.images_client().update(update).await {
                Ok(_) => return Ok(ImageOutcome::Updated),
                Err(status) => {
                    let error = self.failed(OPERATION, &name, status);
                    if !error.is_not_found() {
                        return Err(error);
                    }
                }
            }
        }
        Err(StoreError::Contended { operation: OPERATION, subject: name, attempts: ATTEMPTS })
    }

    /// Removes a record; `false` when there was none. With `sync` the call returns after a garbage collection, which
    /// holds containerd for as long as it takes.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn delete_image(&self, name: &str, sync: bool) -> Result<bool, StoreError> {
        let request = DeleteImageRequest { name: name.to_owned(), sync, target: None };
        let answer = self.images_client().delete(request).await;
        self.removed("delete image", name, answer.err())
    }

    /// The outcome of a removal: `false` when the object was not there.
    pub(super) fn removed(
        &self,
        operation: &'static str,
        subject: &str,
        status: Option<tonic::Status>,
    ) -> Result<bool, StoreError> {
        match status.map(|status| self.failed(operation, subject, status)) {
            None => Ok(true),
            Some(error) if error.is_not_found() => Ok(false),
            Some(error) => Err(error),
        }
    }
}
