//! As much of Google Cloud Storage's XML API as `object_store` asks of it, over objects in memory: Google's own
//! emulators cannot be installed here, and those that can do not list by XML.
//!
//! What it answers is by <https://docs.cloud.google.com/storage/docs/xml-api/reference-methods>; a page of a listing
//! is short, so that listings have several.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::get;
use bytes::Bytes;
use parking_lot::Mutex;

pub const BUCKET: &str = "hushfs";

const PAGE_LEN: usize = 3;

#[derive(Default)]
struct Objects {
    by_name: BTreeMap<String, (u64, Bytes)>,
    generation: u64,
}

type Shared = State<Arc<Mutex<Objects>>>;

/// Serves until the runtime ends; returns where.
pub async fn serve() -> String {
    let app = Router::new()
        .route("/{bucket}", get(list))
        .route("/{bucket}/{*name}", get(read).head(read).put(create).delete(delete))
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn answer(status: StatusCode, headers: &[(&str, String)], body: impl Into<Body>) -> Response<Body> {
    let builder =
        headers.iter().fold(Response::builder().status(status), |builder, (name, value)| builder.header(*name, value));
    builder.body(body.into()).expect("a response")
}

fn failure(status: StatusCode, code: &str) -> Response<Body> {
    answer(status, &[], format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>"))
}

fn no_bucket(bucket: &str) -> Option<Response<Body>> {
    (bucket != BUCKET).then(|| failure(StatusCode::NOT_FOUND, "NoSuchBucket"))
}

async fn create(
    State(objects): Shared,
    Path((bucket, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if let Some(failure) = no_bucket(&bucket) {
        return failure;
    }
    let mut objects = objects.lock();
    let there = objects.by_name.get(&name).map_or(0, |(generation, _)| *generation);
    let wanted = headers.get("x-goog-if-generation-match").map(|value| value.to_str().expect("a number").parse());
    if wanted.is_some_and(|wanted| wanted != Ok(there)) {
        return failure(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
    }
    objects.generation += 1;
    let generation = objects.generation;
    objects.by_name.insert(name, (generation, body));
    answer(StatusCode::OK, &tags(generation), Body::empty())
}

async fn read(
    State(objects): Shared,
    Path((bucket, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    if let Some(failure) = no_bucket(&bucket) {
        return failure;
    }
    let Some((generation, bytes)) = objects.lock().by_name.get(&name).cloned() else {
        return failure(StatusCode::NOT_FOUND, "NoSuchKey");
    };
    let mut tags = tags(generation);
    tags.push(("last-modified", "Fri, 13 Nov 2020 08:00:00 GMT".into()));
    let Some(range) = headers.get("range") else { return answer(StatusCode::OK, &tags, bytes) };
    let range = range.to_str().expect("ASCII").strip_prefix("bytes=").expect("bytes");
    let (start, end) = range.split_once('-').expect("a range");
    let start: usize = start.parse().expect("a start");
    let end = end.parse().map_or(bytes.len(), |last: usize| bytes.len().min(last + 1));
    if start >= bytes.len() {
        return failure(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
    }
    tags.push(("content-range", format!("bytes {start}-{}/{}", end - 1, bytes.len())));
    answer(StatusCode::PARTIAL_CONTENT, &tags, bytes.slice(start..end))
}

fn tags(generation: u64) -> Vec<(&'static str, String)> {
    vec![("etag", format!("\"{generation}\"")), ("x-goog-generation", generation.to_string())]
}

async fn delete(State(objects): Shared, Path((bucket, name)): Path<(String, String)>) -> Response<Body> {
    if let Some(failure) = no_bucket(&bucket) {
        return failure;
    }
    match objects.lock().by_name.remove(&name) {
        Some(_) => answer(StatusCode::NO_CONTENT, &[], Body::empty()),
        None => failure(StatusCode::NOT_FOUND, "NoSuchKey"),
    }
}

async fn list(
    State(objects): Shared,
    Path(bucket): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response<Body> {
    if let Some(failure) = no_bucket(&bucket) {
        return failure;
    }
    let prefix = query.get("prefix").map_or("", String::as_str);
    // The token is the last name of the page before.
    let from = query.get("continuation-token").map_or(Bound::Included(prefix), |token| Bound::Excluded(token));
    let objects = objects.lock();
    let mut found = objects.by_name.range::<str, _>((from, Bound::Unbounded));
    let page: Vec<_> = found.by_ref().take_while(|(name, _)| name.starts_with(prefix)).take(PAGE_LEN).collect();
    let more = page.len() == PAGE_LEN && found.next().is_some_and(|(name, _)| name.starts_with(prefix));
    let mut body = String::from("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>");
    for (name, (generation, bytes)) in &page {
        body += &format!(
            "<Contents><Key>{}</Key><LastModified>2020-11-13T08:00:00.000Z</LastModified><Size>{}</Size>\
             <ETag>\"{generation}\"</ETag></Contents>",
            name.replace('&', "&amp;").replace('<', "&lt;"),
            bytes.len(),
        );
    }
    if let (true, Some((last, _))) = (more, page.last()) {
        body += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
    }
    body += &format!("<IsTruncated>{more}</IsTruncated></ListBucketResult>");
    answer(StatusCode::OK, &[("content-type", "application/xml".into())], body)
}
