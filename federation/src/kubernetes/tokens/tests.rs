//! The reviewer against answers of an API server, good and bad ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kube::client::Body;
use serde_json::Value;
use tonic::codegen::http;

use super::*;

const AUDIENCE: &str = "fedgate";

fn token(text: &str) -> Token {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", format!("Bearer {text}").parse().unwrap());
    Token::from_metadata(&metadata).unwrap()
}

fn good() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["other", AUDIENCE],
        "user": {
            "username": "system:serviceaccount:fedgate-system:fedgate-gateway",
            "extra": { POD_NAME: ["gw-7d9f-x2x"] },
        },
    })
}

/// A reviewer whose API server always answers the same; counts how often it was asked.
fn answering(code: u16, body: String) -> (TokenReviewer, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let service = tower::service_fn(move |_: http::Request<Body>| {
        counter.fetch_add(1, Ordering::Relaxed);
        let response =
            http::Response::builder().status(code).body(Body::from(body.clone().into_bytes()));
        async move { Ok::<_, std::convert::Infallible>(response.unwrap()) }
    });
    (TokenReviewer::new(kube::Client::new(service, "default")), asked)
}

fn reviewing(status: Value) -> (TokenReviewer, Arc<AtomicUsize>) {
    let review = json!({ "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {}, "spec": {}, "status": status });
    answering(201, review.to_string())
}

#[tokio::test]
async fn a_good_token_is_its_accounts_and_pods() {
    let (reviewer, _) = reviewing(good());
    let bearer = reviewer.review(&token("t"), AUDIENCE).await.unwrap();
    assert_eq!(bearer.account.to_string(), "fedgate-system/fedgate-gateway");
    assert_eq!(bearer.pod.unwrap().as_str(), "gw-7d9f-x2x");
}

#[tokio::test]
async fn what_the_api_server_does_not_vouch_for_is_refused() {
    let with = |key: &str, value: Value| {
        let mut status = good();
        status[key] = value;
        status
    };
    let user = |name: &str| with("user", json!({ "username": name }));
    for (status, wanted) in [
        (json!({}), "the API server refuses the token: it says no more"),
        (with("authenticated", json!(false)), "the API server refuses the token"),
        (json!({ "error": "token expired" }), "refuses the token: token expired"),
        (with("audiences", json!([])), "not for the audience \"fedgate\""),
        (with("audiences", Value::Null), "not for the audience \"fedgate\""),
        (with("audiences", json!(["fedgate-operator"])), "not for the audience \"fedgate\""),
        (user("admin"), "\"admin\"'s, who is no ServiceAccount"),
        (user("system:serviceaccount:a"), "who is no ServiceAccount"),
        (user("system:serviceaccount:a:b:c"), "who is no ServiceAccount"),
        (user("system:node:a"), "who is no ServiceAccount"),
    ] {
        let error = reviewing(status.clone()).0.review(&token("t"), AUDIENCE).await.unwrap_err();
        assert!(matches!(error, TokenError::Refused(_)), "{status}: {error}");
        assert!(error.to_string().contains(wanted), "{error} is without {wanted}");
    }
    let unbound = with("user", json!({ "username": "system:serviceaccount:a:b" }));
    assert_eq!(reviewing(unbound).0.review(&token("t"), AUDIENCE).await.unwrap().pod, None);
}

#[tokio::test]
async fn no_answer_is_not_a_no() {
    let forbidden = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": "tokenreviews is forbidden", "reason": "Forbidden", "code": 403 });
    for (code, body, wanted) in [
        (403, forbidden.to_string(), "could not be reviewed: tokenreviews is forbidden"),
        (500, String::new(), "could not be reviewed"),
        (201, "secret-token".to_string(), "the API server's answer is no TokenReview"),
    ] {
        let error = answering(code, body).0.review(&token("t"), AUDIENCE).await.unwrap_err();
        assert!(matches!(error, TokenError::Unavailable(_)), "{error}");
        assert!(error.to_string().contains(wanted), "{error} is without {wanted}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_moment_ago_is_not_asked_again() {
    let (reviewer, asked) = reviewing(good());
    let start = Instant::now();
    let ask = async |text: &str, after: Duration| {
        reviewer.review_cached(&token(text), AUDIENCE, start + after).await.unwrap();
        asked.load(Ordering::Relaxed)
    };
    assert_eq!(ask("a", Duration::ZERO).await, 1);
    assert_eq!(ask("a", TOKEN_CACHE_TIME / 2).await, 1);
    assert_eq!(ask("b", TOKEN_CACHE_TIME / 2).await, 2, "another token");
    assert_eq!(ask("a", TOKEN_CACHE_TIME).await, 3, "its time is over");
    for index in 0..TOKENS_CACHED_MAX + 8 {
        ask(&index.to_string(), TOKEN_CACHE_TIME).await;
    }
    assert_eq!(reviewer.cache().len(), TOKENS_CACHED_MAX);
}

#[test]
fn a_token_is_read_strictly_and_never_shown() {
    let read = |header: Option<&str>| {
        let mut metadata = MetadataMap::new();
        if let Some(header) = header {
            metadata.insert("authorization", header.parse().unwrap());
        }
        Token::from_metadata(&metadata)
    };
    assert_eq!(read(Some("bearer  abc ")).unwrap().0, "abc");
    assert_eq!(format!("{:?}", token("abc")), "Token(..)");
    let long = format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1));
    for (header, wanted) in [
        (None, "no token came"),
        (Some("abc"), "is not Bearer"),
        (Some("Basic abc"), "is not Bearer"),
        (Some("Bearer "), "the token has 0 bytes"),
        (Some(&*long), "the token has 16385 bytes"),
    ] {
        let error = read(header).unwrap_err();
        assert!(error.contains(wanted), "{error} is without {wanted}");
    }
}
