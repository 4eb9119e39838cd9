//! Requests to answers. Invariant: a path becomes an id and a number or nothing, so nothing else can be asked for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, Request, State};
use axum::http::header::{self, HeaderMap};
use axum::http::{Method, Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::get;
use bytes::Bytes;
use futures::Stream;
use tokio::time::Instant;

use super::address::{Visitor, client_address, is_forwarded};
use super::answer::{harden, later, refusal, set, tagged};
use super::links::{LinkState, short};
use super::metrics::Gauges;
use super::page;
use super::range::{RangeRefusal, aligned_range};
use super::server::{Gateway, OpenPlace};
use crate::base::{BLOCK_LEN, ByteRange, LinkId};
use crate::crypto::sha256;
use crate::store::StoreError;

/// The other end of the connection.
#[derive(Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Who asks, as far as that is believed.
#[derive(Clone, Copy)]
struct Asker {
    address: IpAddr,
    visitor: Visitor,
}

/// Kept until the answer's last byte is handed over.
#[derive(Clone)]
struct Place(#[expect(dead_code, reason = "held, not read")] Arc<OpenPlace>);

type Answer = Response<Body>;
type Shared = State<Arc<Gateway>>;

pub fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/s/{id}", get(page_of_link))
        .route("/s/{id}/record", get(record))
        .route("/s/{id}/pk/{pack}", get(pack))
        .route("/page.js", get(|headers: HeaderMap| async move { page_file("page.js", &headers) }))
        .route("/page.css", get(|headers: HeaderMap| async move { page_file("page.css", &headers) }))
        .route("/worker.js", get(|headers: HeaderMap| async move { page_file("worker.js", &headers) }))
        .route("/sw.js", get(|headers: HeaderMap| async move { page_file("sw.js", &headers) }))
        .route("/robots.txt", get(|| async { Response::new(Body::from("User-agent: *\nDisallow: /\n")) }))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "not-found") })
        .method_not_allowed_fallback(|| async { refusal(StatusCode::METHOD_NOT_ALLOWED, "method") })
        .layer(from_fn_with_state(gateway.clone(), around))
        .with_state(gateway)
}

/// What is done for every request: who asks, may they, and a line in the log.
async fn around(
    State(gateway): Shared,
    Extension(Peer(peer)): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Answer {
    let begun = Instant::now();
    let address = client_address(peer, request.headers(), &gateway.trusted_proxies);
    let asker = Asker { address, visitor: Visitor::of(address) };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut answer = match admit(&gateway, asker.visitor) {
        Ok(place) => {
            request.extensions_mut().insert(asker);
            // Kept here while the answer is made, and by its body as long as that is sent.
            let place = Place(Arc::new(place));
            request.extensions_mut().insert(place.clone());
            let answer = next.run(request).await;
            drop(place);
            answer
        }
        Err(wait) => sent_away(&gateway, &wait),
    };
    harden(&mut answer);
    gateway.metrics.answers.count(answer.status().as_u16());
    log(&gateway, &method, &path, asker, answer.status(), begun);
    answer
}

/// Why somebody has to wait.
enum Wait {
    Budget(Duration),
    Busy,
}

/// That too many are open changes within moments.
const BUSY_FOR: Duration = Duration::from_secs(2);

fn admit(gateway: &Arc<Gateway>, visitor: Visitor) -> Result<OpenPlace, Wait> {
    gateway.visitors.admit(visitor, Instant::now()).map_err(Wait::Budget)?;
    gateway.clone().open_place(visitor).ok_or(Wait::Busy)
}

fn sent_away(gateway: &Gateway, wait: &Wait) -> Answer {
    match wait {
        Wait::Budget(after) => {
            gateway.metrics.over_budget.add(1);
            later(StatusCode::TOO_MANY_REQUESTS, "budget", *after)
        }
        Wait::Busy => {
            gateway.metrics.over_open.add(1);
            later(StatusCode::TOO_MANY_REQUESTS, "busy", BUSY_FOR)
        }
    }
}

/// Neither an address nor a whole id, unless that was asked for. A path that is none of ours may hold anything.
fn log(gateway: &Gateway, method: &Method, path: &str, asker: Asker, status: StatusCode, begun: Instant) {
    let (ms, status) = (begun.elapsed().as_millis() as u64, status.as_u16());
    let place = place_of(path, gateway.log_details);
    let method = if matches!(*method, Method::GET | Method::HEAD) { method.as_str() } else { "other" };
    if gateway.log_details {
        tracing::info!(method, place, status, ms, from = %asker.address, "request");
    } else {
        tracing::info!(method, place, status, ms, "request");
    }
}

/// What the log says of a path.
pub fn place_of(path: &str, whole: bool) -> String {
    let mut parts = path.strip_prefix("/s/").unwrap_or_default().splitn(2, '/');
    let id = parts.next().and_then(LinkId::parse_hex);
    let Some(id) = id else {
        let is_ours =
            ["/page.js", "/page.css", "/worker.js", "/sw.js", "/robots.txt", "/health", "/metrics"].contains(&path);
        return if is_ours { path.to_owned() } else { "other".to_owned() };
    };
    let id = if whole { id.to_string() } else { short(id) };
    match parts.next() {
        None => format!("/s/{id}"),
        Some("record") => format!("/s/{id}/record"),
        Some(rest) => match rest.strip_prefix("pk/").and_then(pack_number) {
            Some(number) => format!("/s/{id}/pk/{number}"),
            None => "other".to_owned(),
        },
    }
}

fn page_file(name: &str, headers: &HeaderMap) -> Answer {
    let Some((file, tag)) = page::file(name) else { return refusal(StatusCode::NOT_FOUND, "not-found") };
    let mut answer = tagged(headers, tag, file.content_type, file.body);
    set(&mut answer, header::CONTENT_SECURITY_POLICY, file.policy);
    answer
}

/// The same for every link, so that it tells nothing of any.
async fn page_of_link(Path(id): Path<String>, headers: HeaderMap) -> Answer {
    match LinkId::parse_hex(&id) {
        Some(_) => page_file("page.html", &headers),
        None => refusal(StatusCode::NOT_FOUND, "not-found"),
    }
}

async fn record(
    State(gateway): Shared,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    let Some(link) = LinkId::parse_hex(&id) else { return refusal(StatusCode::NOT_FOUND, "not-found") };
    if let Some(refused) = over_budget_of_link(&gateway, link) {
        return refused;
    }
    let wants_tombstone = query.as_deref() == Some("raw");
    let record = match gateway.in_time(gateway.links.state(link)).await {
        Ok(LinkState::Revoked(tombstone)) if wants_tombstone => tombstone,
        Ok(LinkState::Current(record)) => record,
        Ok(state) => return not_current(&state),
        Err(error) => return store_failed(&error),
    };
    let tag = format!("\"{}\"", &page::hex(&sha256(record.bytes()))[..32]);
    let answer = tagged(&headers, &tag, "application/octet-stream", record.bytes().to_vec());
    if method == Method::GET && answer.status() == StatusCode::OK {
        gateway.sends(asker.visitor, link, record.bytes().len() as u64);
    }
    answer
}

fn not_current(state: &LinkState) -> Answer {
    match state {
        LinkState::Revoked(_) => refusal(StatusCode::GONE, "revoked"),
        LinkState::Expired => refusal(StatusCode::GONE, "expired"),
        LinkState::Absent | LinkState::Current(_) => refusal(StatusCode::NOT_FOUND, "not-found"),
    }
}

fn over_budget_of_link(gateway: &Gateway, link: LinkId) -> Option<Answer> {
    let wait = gateway.links_budget.admit(link, Instant::now()).err()?;
    Some(sent_away(gateway, &Wait::Budget(wait)))
}

/// The store's own words may name buckets and hosts: they go into the log.
fn store_failed(error: &StoreError) -> Answer {
    tracing::warn!("the store did not answer: {:?} {}", error.kind, error.detail);
    later(StatusCode::BAD_GATEWAY, "store", BUSY_FOR)
}

/// From 1, in decimal, in the shortest form or with the twenty digits of the object's name.
fn pack_number(text: &str) -> Option<u64> {
    let is_one_spelling = !text.starts_with('0') || text.len() == 20;
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_one_spelling && is_digits).then(|| text.parse().ok())?.filter(|number| *number > 0)
}

async fn pack(
    State(gateway): Shared,
    Extension(asker): Extension<Asker>,
    Extension(place): Extension<Place>,
    Path((id, number)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let (Some(link), Some(number)) = (LinkId::parse_hex(&id), pack_number(&number)) else {
        return refusal(StatusCode::NOT_FOUND, "not-found");
    };
    if let Some(refused) = over_budget_of_link(&gateway, link) {
        return refused;
    }
    match gateway.in_time(gateway.links.state(link)).await {
        Ok(LinkState::Current(_)) => {}
        Ok(state) => return not_current(&state),
        Err(error) => return store_failed(&error),
    }
    let size = match gateway.in_time(gateway.blocks.size((link, number))).await {
        Ok(Some(size)) => size,
        // Packs go right after the link does, and that may be sooner than it is noticed here.
        Ok(None) => match gateway.in_time(gateway.links.state_now(link)).await {
            Ok(state) => return not_current(&state),
            Err(error) => return store_failed(&error),
        },
        Err(error) => return store_failed(&error),
    };
    let wanted = headers.get(header::RANGE).map(|value| value.to_str().unwrap_or(""));
    let range = match aligned_range(wanted, size) {
        Ok(range) => range,
        Err(RangeRefusal::Missing) => return refusal(StatusCode::BAD_REQUEST, "range-needed"),
        Err(RangeRefusal::Unfit) => {
            let mut answer = refusal(StatusCode::RANGE_NOT_SATISFIABLE, "range");
            set(&mut answer, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return answer;
        }
    };
    let tag = format!("\"{number}\"");
    let mut answer = tagged(&headers, &tag, "application/octet-stream", Body::empty());
    if answer.status() == StatusCode::NOT_MODIFIED {
        return answer;
    }
    *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    *answer.body_mut() = Body::from_stream(blocks_of(gateway, (link, number), range, asker.visitor, place));
    set(&mut answer, header::CONTENT_LENGTH, &range.len().to_string());
    set(&mut answer, header::CONTENT_RANGE, &format!("bytes {}-{}/{size}", range.start, range.end - 1));
    set(&mut answer, header::ACCEPT_RANGES, "bytes");
    set(&mut answer, header::CACHE_CONTROL, "no-store");
    answer
}

/// A link that is taken back meanwhile ends the answer, in the middle.
fn blocks_of(
    gateway: Arc<Gateway>,
    pack: (LinkId, u64),
    range: ByteRange,
    visitor: Visitor,
    place: Place,
) -> impl Stream<Item = Result<Bytes, CutOff>> + Send + 'static {
    let (first, end) = (range.start / BLOCK_LEN, range.end.div_ceil(BLOCK_LEN));
    futures::stream::try_unfold((first, place), move |(block, place)| {
        let gateway = gateway.clone();
        async move {
            if block == end {
                return Ok(None);
            }
            if !matches!(gateway.in_time(gateway.links.state(pack.0)).await, Ok(LinkState::Current(_))) {
                return Err(CutOff);
            }
            let bytes = gateway.in_time(gateway.blocks.get(pack, block, end)).await.ok().flatten().ok_or(CutOff)?;
            let wanted = (range.end - block * BLOCK_LEN).min(BLOCK_LEN);
            if bytes.len() as u64 != wanted {
                return Err(CutOff);
            }
            gateway.sends(visitor, pack.0, wanted);
            Ok(Some((bytes, (block + 1, place))))
        }
    })
}

/// The status is sent long since; the connection ends too early, and the reader asks again and is told why.
#[derive(Debug, thiserror::Error)]
#[error("the answer cannot be completed")]
struct CutOff;

async fn health(State(gateway): Shared) -> Answer {
    let mut answer = match gateway.in_time(gateway.store_answers()).await {
        Ok(()) => Response::new(Body::from("{\"ok\":true}")),
        Err(error) => return store_failed(&error),
    };
    set(&mut answer, header::CONTENT_TYPE, "application/json");
    answer
}

/// For this machine: how much is going on is nobody else's concern.
async fn metrics(State(gateway): Shared, Extension(Peer(peer)): Extension<Peer>, headers: HeaderMap) -> Answer {
    if !peer.to_canonical().is_loopback() || is_forwarded(&headers) {
        return refusal(StatusCode::NOT_FOUND, "not-found");
    }
    let gauges = Gauges { open: gateway.open_now(), cache_bytes: gateway.blocks.kept_bytes() };
    let mut answer = Response::new(Body::from(gateway.metrics.text(&gauges)));
    set(&mut answer, header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_has_two_spellings_and_no_more() {
        assert_eq!(pack_number("1"), Some(1));
        assert_eq!(pack_number("00000000000000000012"), Some(12));
        assert_eq!(pack_number("18446744073709551615"), Some(u64::MAX));
        for text in ["", "0", "01", "+1", "-1", "1/", "1a", "18446744073709551616", "00000000000000000000", "1 "] {
            assert_eq!(pack_number(text), None, "{text}");
        }
    }

    #[test]
    fn a_log_line_holds_no_whole_id_and_nothing_that_a_visitor_made_up() {
        let id = "00112233445566778899aabbccddeeff";
        assert_eq!(place_of(&format!("/s/{id}"), false), "/s/001122..");
        assert_eq!(place_of(&format!("/s/{id}/record"), false), "/s/001122../record");
        assert_eq!(place_of(&format!("/s/{id}/pk/7"), false), "/s/001122../pk/7");
        assert_eq!(place_of(&format!("/s/{id}/pk/7"), true), format!("/s/{id}/pk/7"));
        for path in ["/", "/s/", "/s/secret", "/s/secret/record", "/secret", "/page.js/x"] {
            assert_eq!(place_of(path, true), "other", "{path}");
        }
        assert_eq!(place_of(&format!("/s/{id}/secret"), true), "other");
        assert_eq!(place_of("/page.js", false), "/page.js");
    }
}
