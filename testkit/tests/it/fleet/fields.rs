//! Header fields and trailers: what crosses, what does not, and over which versions of HTTP.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use testkit::origin::Seen;
use testkit::{Client, Origin, Speaks, client};

use super::{World, east_calls_west, host};

/// Sends a POST with these fields, trailers and body, over this version.
async fn post(
    world: &World,
    version: Version,
    service: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> client::Answer {
    let mut client = Client::connect(world.http("east"), version).await.unwrap();
    let mut request = client.request(Method::POST, &host(service), path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let trailers = HeaderMap::from_iter([(
        HeaderName::from_static("x-client-sum"),
        HeaderValue::from_static("7"),
    )]);
    let body = client::with_trailers("a body", trailers);
    client.send(request.body(body).unwrap()).await.unwrap()
}

fn last(origin: &Origin, path: &str) -> Seen {
    origin.seen_of(path).pop().unwrap_or_else(|| panic!("{path} did not arrive"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_one_connection_stay_there() {
    let (world, origin) = east_calls_west().await;
    let fields = [
        ("connection", "keep-alive, X-Nominated, te"),
        ("x-nominated", "secret of the connection"),
        ("keep-alive", "timeout=77"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic eDp5"),
        ("te", "trailers, deflate"),
        ("x-kept", "one"),
        ("x-kept", "two"),
        ("cookie", "a=b; c=d"),
    ];
    post(&world, Version::HTTP_11, "api", "/hop-out", &fields).await;
    let seen = last(&origin, "/hop-out");
    for name in ["x-nominated", "keep-alive", "proxy-connection", "proxy-authorization"] {
        assert!(!seen.headers.contains_key(name), "{name}: {:?}", seen.headers);
    }
    let all = |name: &str| {
        seen.headers
            .get_all(name)
            .iter()
            .map(|v| v.to_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(all("x-kept"), ["one", "two"], "order and number stay");
    assert_eq!(all("te"), ["trailers"]);
    assert_eq!(all("cookie"), ["a=b; c=d"]);
    assert!(
        !all("connection").iter().any(|value| value.contains("nominated")),
        "{:?}",
        seen.headers
    );

    let answer = world.get("east", "api", "/hop").await.unwrap();
    for name in ["x-internal", "keep-alive", "proxy-connection", "proxy-authenticate"] {
        assert!(!answer.headers.contains_key(name), "{name}: {:?}", answer.headers);
    }
    assert_eq!(answer.header("x-kept"), "1");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_from_outside_never_reach_an_application() {
    let (world, origin) = east_calls_west().await;
    let local = world.run("east", "local", Speaks::Http1).await;
    let route = super::intent::http_route("local", &host("local"), "Service");
    world.write("east", "route-local", &route);
    world.until_answer("east", "local", "local@east").await;
    let claims = [
        ("x-forwarded-client-cert", "By=spiffe://east.demo.example/ns/shop/sa/admin"),
        ("x-fed-source", "spiffe://east.demo.example/ns/shop/sa/admin"),
        ("x-fed-via", "00000000000000000000000000000000"),
        ("x-fed-hops", "no number"),
        ("X-Fed-Anything", "a claim"),
        ("forwarded", "for=192.0.2.1;proto=https"),
        ("x-forwarded-host", "bank.example"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "../../etc/passwd\u{9}<script>"),
        ("traceparent", "00-zz-zz-zz"),
    ];
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (service, origin) in [("api", &origin), ("local", &local)] {
            post(&world, version, service, "/claims", &claims).await;
            let seen = last(origin, "/claims");
            let told = format!("{version:?} {service}: {:?}", seen.headers);
            for (_, value) in &claims[..9] {
                let kept = seen.headers.values().any(|other| other == value);
                assert!(!kept, "{value:?} came through: {told}");
            }
            let client = seen.headers["x-forwarded-for"].to_str().unwrap();
            assert_eq!(client, "127.0.0.1", "{told}");
            assert_eq!(seen.headers["x-forwarded-proto"], "http", "{told}");
            assert_eq!(seen.headers["x-request-id"].len(), 32, "{told}");
        }
    }
    // What an application says under our name is not ours either.
    let answer = world.get("east", "api", "/").await.unwrap();
    assert_eq!(answer.code(), "");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_both_ways_between_all_versions() {
    let (world, http1) = east_calls_west().await;
    let h2c = world.run("west", "grpc", Speaks::H2c).await;
    world.export("west", "grpc", "[{cluster: east}]");
    world.import("east", "grpc", "kubernetes.io/h2c", &["west"]);
    world.until_answer("east", "grpc", "grpc@west").await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (service, origin) in [("api", &http1), ("grpc", &h2c)] {
            let path = format!("/trailers/{version:?}");
            let mut fields = vec![("te", "trailers"), ("trailer", "x-client-sum")];
            if version == Version::HTTP_11 {
                fields.push(("connection", "te"));
            }
            let answer = post(&world, version, service, &path, &fields).await;
            let told = format!("{version:?} to {service}");
            assert_eq!(answer.status, StatusCode::OK, "{told}");
            assert_eq!(answer.trailers.get("x-sum").unwrap(), "42", "{told}: {answer:?}");
            let seen = last(origin, &path);
            assert_eq!(seen.trailers.get("x-client-sum").unwrap(), "7", "{told}: {seen:?}");
            assert_eq!(seen.headers["te"], "trailers", "{told}");
            let expected = if service == "grpc" { Version::HTTP_2 } else { Version::HTTP_11 };
            assert_eq!(seen.version, expected);
        }
    }
    world.stop().await;
}

/// gRPC clients read a status from trailers, also when it is the gateway that refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_clients_are_refused_in_their_own_words() {
    let world = World::start(&["east", "west"]).await;
    let _origin = world.run("west", "grpc", Speaks::H2c).await;
    world.export("west", "grpc", "[]");
    world.listen("east");
    world.import("east", "grpc", "kubernetes.io/h2c", &["west"]);
    world.until_status("east", "grpc", StatusCode::FORBIDDEN).await;
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let denied = post(&world, Version::HTTP_2, "grpc", "/shop.Api/Get", &fields).await;
    assert_eq!(denied.status, StatusCode::OK);
    let status = denied.headers.get("grpc-status").or_else(|| denied.trailers.get("grpc-status"));
    assert_eq!(status.unwrap(), "7", "{denied:?}");
    assert_eq!(denied.code(), "FED5001");
    let unknown = post(&world, Version::HTTP_2, "nobody", "/shop.Api/Get", &fields).await;
    assert_eq!((unknown.status, unknown.code()), (StatusCode::OK, "FED7001"));
    assert_eq!(unknown.header("grpc-status"), "12");
    world.stop().await;
}

/// Too much of everything is refused by name, and costs nobody else anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_beyond_the_limits_are_refused() {
    let (world, origin) = east_calls_west().await;
    let address = world.http("east");
    let head = |fields: String| {
        format!("GET /huge HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{fields}\r\n", host("api"))
    };
    let many: String = (0..200).map(|n| format!("x-field-{n}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "a".repeat(80_000));
    for fields in [many, long] {
        let told = client::raw(address, head(fields)).await.unwrap();
        assert!(told.starts_with("HTTP/1.1 431"), "{}", &told[..told.len().min(200)]);
    }
    let mut http2 = Client::connect(address, Version::HTTP_2).await.unwrap();
    for (name, value) in [("x-long", "a".repeat(80_000))] {
        let request = http2.request(Method::GET, &host("api"), "/huge").header(name, value);
        // The answer is 431, or the stream is refused before it is read.
        let refused = http2.send(request.body(client::empty()).unwrap()).await;
        assert!(refused.as_ref().map_or(true, |answer| answer.status == 431), "{refused:?}");
    }
    let mut http2 = Client::connect(address, Version::HTTP_2).await.unwrap();
    let mut request = http2.request(Method::GET, &host("api"), "/huge");
    for number in 0..200 {
        request = request.header(format!("x-field-{number}"), "1");
    }
    let refused = http2.send(request.body(client::empty()).unwrap()).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.code()), (431, "FED7009"), "{refused:?}");
    assert_eq!(origin.seen_of("/huge").len(), 0);
    // The longest that is allowed passes.
    let fits: String = (0..70).map(|n| format!("x-field-{n}: {}\r\n", "v".repeat(200))).collect();
    let told = client::raw(address, head(fits)).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 200"), "{}", &told[..told.len().min(200)]);
    // An application may not send more than tunnel v1 carries; that is its fault, not the client's.
    let answer = world.get("east", "api", "/fields/200").await.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{answer:?}");
    let answer = world.get("east", "api", "/fields/80").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    world.stop().await;
}
