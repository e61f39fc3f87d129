//! An archive's images into containerd, through its content and image services.
//!
//! A lease holds the blobs until an image refers to them: containerd's garbage collector would take them in
//! between. Unpacking is left to the first container that runs the image, as the interface's plugin does.

use super::archive::{Archive, Blob, Source};
use crate::client;
use crate::error::{Error, Result};
use crate::events::NAMESPACE;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    CreateImageRequest, CreateRequest, DeleteRequest, Image, InfoRequest, UpdateImageRequest, WriteAction,
    WriteContentRequest,
};
use containerd_client::types::Descriptor;
use std::collections::HashMap;
use std::path::Path;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Request};

const CHUNK: usize = 1 << 20;

/// An image that the runtime knows now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    pub name: String,
    pub digest: String,
}

/// Imports every image of the archive; those that are there already are replaced by name.
pub async fn import(socket: &Path, archive: &Path) -> Result<Vec<Imported>> {
    let channel = client::connect(socket).await?;
    let mut archive = Archive::open(archive)?;
    let (images, blobs) = archive.contents()?;

    let lease = format!("keelson-import-{}-{}", std::process::id(), images[0].digest);
    let mut leases = LeasesClient::new(channel.clone());
    let expire = HashMap::from([("containerd.io/gc.expire".to_owned(), far_future())]);
    let create = CreateRequest { id: lease.clone(), labels: expire };
    match leases.create(scoped(create, None)).await {
        Err(status) if status.code() != Code::AlreadyExists => {
            return Err(Error::call("create lease", &lease)(status));
        }
        _ => {}
    }
    let outcome = async {
        for blob in &blobs {
            write_blob(&channel, &mut archive, blob, &lease).await?;
        }
        let mut imported = Vec::new();
        for image in images {
            register(&channel, &image, &lease).await?;
            imported.push(Imported { name: image.name, digest: image.digest });
        }
        Ok(imported)
    }
    .await;
    // A lease that stays behind ends by itself; the import's own outcome is what counts.
    let _ = leases.delete(scoped(DeleteRequest { id: lease, sync: false }, None)).await;
    outcome
}

fn far_future() -> String {
    // One day from now in the form that containerd's collector reads.
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64 + 24 * 3600);
    let days = seconds.div_euclid(86_400);
    let (year, month, day) = civil(days);
    let s = seconds.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
}

/// Days since 1970 as year, month and day of the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

pub(super) fn scoped<T>(message: T, lease: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    if let Some(Ok(lease)) = lease.map(str::parse) {
        metadata.insert("containerd-lease", lease);
    }
    request
}

async fn write_blob(channel: &Channel, archive: &mut Archive, blob: &Blob, lease: &str) -> Result<()> {
    let mut content = ContentClient::new(channel.clone());
    if content.info(scoped(InfoRequest { digest: blob.digest.clone() }, Some(lease))).await.is_ok() {
        return Ok(());
    }
    let context = |status| Error::call("write content", &blob.digest)(status);
    let labels = blob.children.iter().enumerate();
    let labels: HashMap<_, _> =
        labels.map(|(i, child)| (format!("containerd.io/gc.ref.content.{i}"), child.clone())).collect();
    let (tx, rx) = mpsc::channel(2);
    let request = scoped(tokio_stream::wrappers::ReceiverStream::new(rx), Some(lease));
    let base = WriteContentRequest {
        r#ref: format!("keelson-import-{}", blob.digest),
        total: blob.size as i64,
        expected: blob.digest.clone(),
        labels,
        ..Default::default()
    };
    // The answers are read while the chunks are sent, or both sides would wait for one another.
    let answers = tokio::spawn(async move {
        let mut answers = content.write(request).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    });
    let mut offset = 0;
    while offset < blob.size {
        let n = (blob.size - offset).min(CHUNK as u64) as usize;
        let data = match &blob.source {
            Source::Bytes(bytes) => bytes[offset as usize..offset as usize + n].to_vec(),
            Source::Entry { offset: start } => {
                let mut data = vec![0; n];
                archive.read_at(start + offset, &mut data).map_err(Error::io("read blob", &blob.digest))?;
                data
            }
        };
        let message = WriteContentRequest {
            action: WriteAction::Write as i32,
            offset: offset as i64,
            data,
            ..base.clone()
        };
        if tx.send(message).await.is_err() {
            break;
        }
        offset += n as u64;
    }
    let commit = WriteContentRequest { action: WriteAction::Commit as i32, offset: blob.size as i64, ..base };
    let _ = tx.send(commit).await;
    drop(tx);
    match answers.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(status)) if status.code() == Code::AlreadyExists => Ok(()),
        Ok(Err(status)) => Err(context(status)),
        Err(_) => Err(context(tonic::Status::cancelled("the upload was given up"))),
    }
}

async fn register(channel: &Channel, image: &super::archive::Image, lease: &str) -> Result<()> {
    let mut images = ImagesClient::new(channel.clone());
    let record = Image {
        name: image.name.clone(),
        // The label by which the interface's plugin takes an image for its own at once.
        labels: HashMap::from([("io.cri-containerd.image".to_owned(), "managed".to_owned())]),
        target: Some(Descriptor {
            media_type: image.media_type.clone(),
            digest: image.digest.clone(),
            size: image.size as i64,
            ..Default::default()
        }),
        ..Default::default()
    };
    let create = CreateImageRequest { image: Some(record.clone()), source_date_epoch: None };
    match images.create(scoped(create, Some(lease))).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => {
            let update =
                UpdateImageRequest { image: Some(record), update_mask: None, source_date_epoch: None };
            images
                .update(scoped(update, Some(lease)))
                .await
                .map(drop)
                .map_err(Error::call("update image", &image.name))
        }
        Err(status) => Err(Error::call("create image", &image.name)(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_089), (2025, 1, 1));
    }
}
