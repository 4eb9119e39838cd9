//! What every answer has in common: headers that keep a browser from doing anything unasked, and errors as JSON.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};

use super::page::NOTHING_POLICY;

const FIXED: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), microphone=(), geolocation=(), payment=(), usb=(), browsing-topics=()",
    ),
];

/// Headers that are on every answer; one that the answer has already stays.
pub fn harden(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    for (name, value) in FIXED {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(NOTHING_POLICY));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// Why a request is not answered, in one word for programs.
pub fn refusal(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{{\"why\":\"{why}\"}}")));
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, "application/json");
    response
}

/// One that is worth a second try after a while.
pub fn later(status: StatusCode, why: &str, after: Duration) -> Response<Body> {
    let mut response = refusal(status, why);
    let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
    set(&mut response, header::RETRY_AFTER, &seconds.to_string());
    response
}

/// A body with a strong tag, or nothing when the client has it.
pub fn tagged(request: &HeaderMap, tag: &str, content_type: &str, body: impl Into<Body>) -> Response<Body> {
    let mut response = if is_known(request, tag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(body.into())
    };
    set(&mut response, header::CONTENT_TYPE, content_type);
    set(&mut response, header::ETAG, tag);
    set(&mut response, header::CACHE_CONTROL, "no-cache");
    response
}

fn is_known(request: &HeaderMap, tag: &str) -> bool {
    let lines = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

/// Of values that are ours: numbers, hex digits, constants.
pub fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_hardened_and_keeps_its_own_policy() {
        let mut response = refusal(StatusCode::NOT_FOUND, "not-found");
        set(&mut response, header::CONTENT_SECURITY_POLICY, "default-src 'self'");
        harden(&mut response);
        assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], "default-src 'self'");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let mut plain = Response::new(Body::empty());
        harden(&mut plain);
        assert_eq!(plain.headers()[header::CONTENT_SECURITY_POLICY], NOTHING_POLICY);
    }

    #[test]
    fn who_has_it_gets_nothing_again() {
        let status = |tags: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, tags.parse().unwrap());
            tagged(&headers, "\"a\"", "text/plain", "body").status()
        };
        assert_eq!(status("\"a\""), StatusCode::NOT_MODIFIED);
        assert_eq!(status("\"b\", W/\"a\""), StatusCode::NOT_MODIFIED);
        assert_eq!(status("*"), StatusCode::NOT_MODIFIED);
        assert_eq!(status("\"b\""), StatusCode::OK);
        assert_eq!(status("a"), StatusCode::OK);
    }

    #[test]
    fn waiting_is_told_in_whole_seconds() {
        let after = |ms| {
            later(StatusCode::TOO_MANY_REQUESTS, "budget", Duration::from_millis(ms)).headers()[header::RETRY_AFTER]
                .clone()
        };
        assert_eq!(
            (after(0), after(1), after(1001)),
            ("1".parse().unwrap(), "1".parse().unwrap(), "2".parse().unwrap())
        );
    }
}
