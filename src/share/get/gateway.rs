//! A link behind a gateway. What it is asked for is the link's id, packs and blocks: never the secret.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::Shared;
use parking_lot::Mutex;
use reqwest::header::{RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use tokio::time::Instant;

use super::{GetError, Gone, LinkSource};
use crate::base::{BLOCK_LEN, ByteRange, LinkId};
use crate::format::link::{RECORD_LEN_MAX, SignedRecord};
use crate::store::{Backoff, Patience};

/// How long a gateway may be away, or ask to wait, before it is an error.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same while it has never answered: then its address may be wrong, and who waits is told soon.
const PATIENCE_FIRST: Duration = Duration::from_secs(10);
/// Without a single byte.
const SILENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(15);
const WHY_LEN_MAX: usize = 4096;
/// How many answers' last blocks are kept.
const LASTS: usize = 16;
/// Who asks for more has one block twice rather than wait for what is on its way: large answers come side by side.
const WAITS_LEN_MAX: u64 = 4 * BLOCK_LEN;

pub struct GatewaySource {
    client: Client,
    /// `https://host`.
    host: String,
    has_answered: AtomicBool,
    lasts: Lasts,
}

/// A block of a pack, by its start.
type Place = (LinkId, u64, u64);

/// The last block of each of the latest answers, which may still be on their way: what is read next mostly begins in
/// it, and with many small files most of what is asked for would be asked for twice.
#[derive(Default)]
struct Lasts(Mutex<VecDeque<(Place, Shared<oneshot::Receiver<Bytes>>)>>);

impl Lasts {
    /// None: it is not one of them, or did not come whole, or has not come yet and is not to be waited for.
    async fn get(&self, place: Place, waits: bool) -> Option<Bytes> {
        let block = self.0.lock().iter().find(|(kept, _)| *kept == place).map(|(_, block)| block.clone())?;
        let block = if waits { block.await } else { block.now_or_never()? };
        block.ok().filter(|block| block.len() as u64 == BLOCK_LEN)
    }

    /// To be told when it has come. Dropped untold, whoever waits asks for it themselves.
    fn expect(&self, place: Place) -> oneshot::Sender<Bytes> {
        let (told, block) = oneshot::channel();
        let mut lasts = self.0.lock();
        lasts.retain(|(kept, _)| *kept != place);
        if lasts.len() == LASTS {
            lasts.pop_front();
        }
        lasts.push_back((place, block.shared()));
        told
    }
}

impl GatewaySource {
    pub fn new(host: &str) -> Result<Self, GetError> {
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("hushfs/", env!("CARGO_PKG_VERSION")))
            .build();
        let client = client.map_err(|error| GetError::Unreachable(plain(&error)))?;
        Ok(Self {
            client,
            host: host.trim_end_matches('/').to_owned(),
            has_answered: AtomicBool::new(false),
            lasts: Lasts::default(),
        })
    }

    /// Until it answers with success or something that waiting does not change. At most `len_max` bytes.
    async fn ask(&self, path: &str, range: Option<ByteRange>, len_max: u64) -> Result<Bytes, GetError> {
        let started = Instant::now();
        let mut backoff = Backoff::new(&Patience::default());
        loop {
            let (error, pause) = match self.once(path, range, len_max).await {
                Ok(bytes) => return Ok(bytes),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Passing(error, pause)) => (error, pause),
            };
            let pause = pause.unwrap_or_else(|| backoff.pause());
            let patience = if self.has_answered.load(Ordering::Relaxed) { PATIENCE } else { PATIENCE_FIRST };
            if started.elapsed().saturating_add(pause) > patience {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn once(&self, path: &str, range: Option<ByteRange>, len_max: u64) -> Result<Bytes, Failed> {
        let mut request = self.client.get(format!("{}/s/{path}", self.host));
        if let Some(range) = range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        let response = request.send().await.map_err(unreachable)?;
        self.has_answered.store(true, Ordering::Relaxed);
        let status = response.status();
        if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT {
            return body(response, len_max).await;
        }
        let pause = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let pause = pause.map(Duration::from_secs);
        // Whatever else the answer holds is the gateway's word, and shown as that.
        let text = body(response, WHY_LEN_MAX as u64).await.unwrap_or_default();
        let why = serde_json::from_slice::<Why>(&text).map(|why| why.why).unwrap_or_default();
        match status {
            StatusCode::NOT_FOUND => Err(Failed::Final(Gone::Missing.into())),
            StatusCode::GONE if why == "expired" => Err(Failed::Final(Gone::Expired.into())),
            StatusCode::GONE => Err(Failed::Final(Gone::Revoked.into())),
            _ => {
                let why = crate::base::Printable(why.as_bytes()).to_string();
                let error = GetError::Gateway { status: status.as_u16(), why };
                let is_passing = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
                Err(if is_passing { Failed::Passing(error, pause) } else { Failed::Final(error) })
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Why {
    why: String,
}

enum Failed {
    Final(GetError),
    /// And how long the gateway asks to wait.
    Passing(GetError, Option<Duration>),
}

async fn body(mut response: Response, len_max: u64) -> Result<Bytes, Failed> {
    let mut whole = BytesMut::new();
    while let Some(part) = response.chunk().await.map_err(unreachable)? {
        if (whole.len() + part.len()) as u64 > len_max {
            return Err(Failed::Final(GetError::Damaged));
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze())
}

fn unreachable(error: reqwest::Error) -> Failed {
    Failed::Passing(GetError::Unreachable(plain(&error)), None)
}

/// Without the address, which the user knows, and with the causes, which say what is wrong.
fn plain(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[async_trait]
impl LinkSource for GatewaySource {
    async fn newest(&self, link: LinkId) -> Result<SignedRecord, GetError> {
        let bytes = self.ask(&format!("{link}/record"), None, RECORD_LEN_MAX).await?;
        let record = SignedRecord::verify_any(link, bytes.to_vec())?;
        if record.is_tombstone() { Err(Gone::Revoked.into()) } else { Ok(record) }
    }

    /// In whole blocks, which are all that a gateway gives.
    async fn read(&self, link: LinkId, pack: u64, range: ByteRange) -> Result<Bytes, GetError> {
        let start = range.start / BLOCK_LEN * BLOCK_LEN;
        let end = range.end.next_multiple_of(BLOCK_LEN);
        let waits = end - start <= WAITS_LEN_MAX;
        let mut blocks = self.lasts.get((link, pack, start), waits).await.unwrap_or_default();
        let missing = ByteRange::new(start + blocks.len() as u64, end);
        if !missing.is_empty() {
            let last = end - BLOCK_LEN;
            let told = self.lasts.expect((link, pack, last));
            let asked = self.ask(&format!("{link}/pk/{pack}"), Some(missing), missing.len()).await?;
            if asked.len() as u64 == missing.len() {
                // Nobody may be waiting. A copy, so that the rest of the answer is not kept with it.
                let _ = told.send(Bytes::copy_from_slice(&asked[(last - missing.start) as usize..]));
            }
            blocks = if blocks.is_empty() { asked } else { [blocks, asked].concat().into() };
        }
        let (from, to) = ((range.start - start) as usize, (range.end - start) as usize);
        if blocks.len() < to { Err(GetError::Damaged) } else { Ok(blocks.slice(from..to)) }
    }
}
