// SPDX-License-Identifier: Apache-2.0
//! Streaming a blob into the content store while its digest is still being computed.
//!
//! The bytes come from blocking code through [`BlobSink`]; [`ContentWriter`] is the asynchronous side that decides,
//! possibly much later, whether they become a blob. Until the commit they are an *ingest*, visible to nobody.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use containerd_client::services::v1::{AbortRequest, ListStatusesRequest, WriteAction, WriteContentRequest};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::codegen::tokio_stream::Stream;

use super::connection::{Store, unique_name};
use super::content::BlobOutcome;
use super::convert;
use super::error::StoreError;
use super::labels::Labels;
use crate::image::Digest;

const OPERATION: &str = "write content";

/// Size of a full frame: large against the cost of a message, small against containerd's limit of 16 MiB.
const FRAME_BYTES: usize = 1 << 20;

/// Full frames that may wait for containerd; together with the one being filled this bounds the memory of a writer.
const FRAMES_IN_FLIGHT: usize = 4;

/// An unfinished blob in containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// The name it was started under.
    pub reference: String,
    /// Bytes received.
    pub written_bytes: u64,
    /// When it was started.
    pub started_at: Option<SystemTime>,
    /// When it last grew.
    pub updated_at: Option<SystemTime>,
}

/// Proof that everything was handed over, from [`BlobSink::finish`]; a commit needs it.
#[derive(Debug)]
pub struct Streamed {
    size_bytes: u64,
}

impl Streamed {
    /// The size of the stream.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// The blocking side: takes the bytes. Not for use on an asynchronous task's thread.
#[derive(Debug)]
pub struct BlobSink {
    frames: mpsc::Sender<WriteContentRequest>,
    frame: Vec<u8>,
    sent_bytes: u64,
}

/// The asynchronous side: commits what the sink was given, or drops it. Dropped without a commit, the ingest is
/// aborted in the background; [`ContentWriter::abort`] waits for that.
#[derive(Debug)]
pub struct ContentWriter {
    store: Store,
    frames: mpsc::Sender<WriteContentRequest>,
    pump: JoinHandle<Result<Ending, StoreError>>,
    /// Dropped: the request ends and the pump aborts the ingest.
    keep: oneshot::Sender<()>,
    reference: String,
}

#[derive(Debug)]
enum Ending {
    Committed,
    Aborted,
}

impl BlobSink {
    /// Hands over what is left in the buffer. Dropping the sink without it leaves nothing that could be committed.
    ///
    /// # Errors
    /// `BrokenPipe` when containerd has stopped reading; [`ContentWriter::abort`] tells why.
    pub fn finish(mut self) -> io::Result<Streamed> {
        self.send_frame()?;
        Ok(Streamed { size_bytes: self.sent_bytes })
    }

    fn send_frame(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let data = std::mem::take(&mut self.frame);
        let length = data.len() as u64;
        let request = WriteContentRequest {
            action: WriteAction::Write.into(),
            offset: offset(self.sent_bytes)?,
            data,
            ..WriteContentRequest::default()
        };
        self.frames
            .blocking_send(request)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "containerd has stopped reading"))?;
        self.sent_bytes += length;
        Ok(())
    }
}

impl Write for BlobSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.frame.len() == FRAME_BYTES {
            self.send_frame()?;
        }
        self.frame.reserve_exact(FRAME_BYTES - self.frame.len());
        let taken = bytes.len().min(FRAME_BYTES - self.frame.len());
        self.frame.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Does nothing: a frame is sent when it is full, or by [`BlobSink::finish`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ContentWriter {
    /// The name of the ingest.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Makes a blob of the stream. containerd compares size and digest; both are known only now. A blob that is there
    /// already gets the labels.
    ///
    /// # Errors
    /// [`StoreError::Call`] with [`super::ErrorKind::FailedPrecondition`] when digest or size differ; an earlier
    /// failure of the stream; [`StoreError::Label`].
    pub async fn commit(
        self,
        streamed: Streamed,
        digest: Digest,
        labels: &Labels,
    ) -> Result<BlobOutcome, StoreError> {
        let Self { store, frames, pump, keep, .. } = self;
        store.checked(OPERATION, digest.to_string(), labels)?;
        let malformed =
            |detail| StoreError::Answer { operation: OPERATION, subject: digest.to_string(), detail };
        let size = i64::try_from(streamed.size_bytes)
            .map_err(|_| malformed(format!("a size of {} bytes", streamed.size_bytes)))?;
        let commit = WriteContentRequest {
            action: WriteAction::Commit.into(),
            total: size,
            expected: digest.to_string(),
            offset: size,
            labels: convert::to_wire_labels(labels),
            ..WriteContentRequest::default()
        };
        // A closed channel means that the pump has ended with an error, which is what the join below returns.
        let _ = frames.send(commit).await;
        let ending = join(pump).await;
        drop(keep);
        match ending {
            Ok(Ending::Committed) => Ok(BlobOutcome::Written),
            Ok(Ending::Aborted) => Err(malformed("the stream ended before the commit".to_owned())),
            Err(error) if error.is_already_exists() => {
                if store.label_existing(digest, labels).await? {
                    Ok(BlobOutcome::AlreadyThere)
                } else {
                    // The bytes are gone with the ingest: only the caller can stream them again.
                    Err(StoreError::Contended {
                        operation: OPERATION,
                        subject: digest.to_string(),
                        attempts: 1,
                    })
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Drops the stream and waits until containerd has.
    ///
    /// # Errors
    /// The failure of the stream, if it failed before: the reason for a `BrokenPipe` of the sink.
    pub async fn abort(self) -> Result<(), StoreError> {
        let Self { pump, keep, frames, .. } = self;
        drop((keep, frames));
        join(pump).await.map(drop)
    }
}

async fn join(pump: JoinHandle<Result<Ending, StoreError>>) -> Result<Ending, StoreError> {
    match pump.await {
        Ok(ending) => ending,
        // Nobody cancels the pump: it has panicked, and so shall who waits for it; or the runtime shuts down.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Ok(Ending::Aborted),
        },
    }
}

/// The messages of one Write call.
///
/// To stop, the request has to be *ended*: a call whose answer is merely dropped stays open as long as its request does,
/// and containerd would go on writing.
struct Frames {
    /// Goes out whatever happens: containerd takes a call without a message for an error.
    first: Option<WriteContentRequest>,
    frames: mpsc::Receiver<WriteContentRequest>,
    stop: oneshot::Receiver<()>,
}

impl Stream for Frames {
    type Item = WriteContentRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        // Ready when the sender is dropped; nothing is ever sent.
        if Pin::new(&mut self.stop).poll(context).is_ready() {
            // A sink that waits for room learns of it now.
            self.frames.close();
            return Poll::Ready(None);
        }
        self.frames.poll_recv(context)
    }
}

/// Drives one Write call: watches the answers while the frames are sent, and removes the ingest if nothing came of it.
async fn pump(store: Store, reference: String, frames: Frames) -> Result<Ending, StoreError> {
    let ending = write(&store, &reference, frames).await;
    if !matches!(ending, Ok(Ending::Committed)) {
        // containerd removes an ingest by itself only when the blob turned out to exist.
        if let Err(error) = store.abort_ingest(&reference).await {
            tracing::warn!(reference, error = &error as &dyn std::error::Error, "an ingest is left behind");
        }
    }
    ending
}

async fn write(store: &Store, reference: &str, frames: Frames) -> Result<Ending, StoreError> {
    let failed = |status| store.failed(OPERATION, reference, status);
    let mut answers = store.content_client().write(frames).await.map_err(failed)?.into_inner();
    while let Some(answer) = answers.message().await.map_err(failed)? {
        if answer.action() == WriteAction::Commit {
            return Ok(Ending::Committed);
        }
    }
    Ok(Ending::Aborted)
}

fn offset(bytes: u64) -> io::Result<i64> {
    i64::try_from(bytes).map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "the blob is too large"))
}

impl Store {
    /// Starts a blob whose digest need not be known yet. `purpose` becomes a part of the ingest's name, which is
    /// unique: `pushless-<purpose>-...`. The call goes out at once; its failure shows at the commit.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn content_writer(&self, purpose: &str) -> (BlobSink, ContentWriter) {
        let reference = unique_name(purpose);
        // The server answers only after the first message, and tonic's call returns only after the answer: so the
        // first message must not wait for the caller.
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: reference.clone(),
            ..WriteContentRequest::default()
        };
        let (frames, receiver) = mpsc::channel(FRAMES_IN_FLIGHT);
        let (keep, stop) = oneshot::channel();
        let stream = Frames { first: Some(first), frames: receiver, stop };
        let pump = tokio::spawn(pump(self.clone(), reference.clone(), stream));
        let sink = BlobSink { frames: frames.clone(), frame: Vec::new(), sent_bytes: 0 };
        (sink, ContentWriter { store: self.clone(), frames, pump, keep, reference })
    }

    /// Drops an ingest; `false` when there is none of this name.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn abort_ingest(&self, reference: &str) -> Result<bool, StoreError> {
        let request = AbortRequest { r#ref: reference.to_owned() };
        let answer = self.content_client().abort(request).await;
        self.removed("abort ingest", reference, answer.err())
    }

    /// The ingests that one of containerd's filters matches (`ref~=^pushless-`); all of them without a filter.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn ingests(&self, filters: &[&str]) -> Result<Vec<Ingest>, StoreError> {
        let request = ListStatusesRequest { filters: filters.iter().map(ToString::to_string).collect() };
        let answer = self.content_client().list_statuses(request).await;
        let statuses = answer.map_err(|status| self.failed("list", "ingests", status))?.into_inner().statuses;
        statuses
            .into_iter()
            .map(convert::to_ingest)
            .collect::<Result<_, _>>()
            .map_err(|detail| StoreError::Answer { operation: "list", subject: "ingests".to_owned(), detail })
    }
}
