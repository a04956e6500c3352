//! What a vector means, as lines of text.

use std::fmt::Write;

use bytes::Bytes;
use http::HeaderMap;
use wire::tunnel::{Beacon, Frame, Head, Hello, Open, RequestHead, ResponseHead, RouteSide};

/// One frame as lines: its name and fields; HTTP fields follow, indented.
pub(crate) fn frame(frame: &Frame) -> Vec<String> {
    match frame {
        Frame::Hello(hello) => show_hello(hello),
        Frame::Beacon(beacon) => show_beacon(beacon),
        Frame::Drain(drain) => vec![format!("DRAIN grace_ms = {}", drain.grace_ms)],
        Frame::Open(open) => show_open(open),
        Frame::Opened => vec!["OPENED".into()],
        Frame::Refused(refused) => vec![
            "REFUSED".into(),
            format!("  code = {} ({:#04x})", refused.code, refused.code.number()),
            format!("  dispatched = {}", refused.dispatched.as_str()),
            format!("  message = {:?}", refused.message),
        ],
        Frame::Head(head) => match &**head {
            Head::Request(head) => show_request(head),
            Head::Response(head) => show_response(head),
        },
        Frame::Data(data) => vec![format!("DATA \"{}\"", data.escape_ascii())],
        Frame::Trailers(trailers) => {
            let mut lines = vec!["TRAILERS".into()];
            show_fields(trailers, &mut lines);
            lines
        }
        Frame::End => vec!["END".into()],
        Frame::Moved(token) => vec![format!("MOVED token = {token:?}")],
        Frame::Resume(token) => vec![format!("RESUME token = {token:?}")],
    }
}

fn show_beacon(beacon: &Beacon) -> Vec<String> {
    let mut lines = vec![
        "BEACON".into(),
        format!("  incarnation = {:#018x}", beacon.incarnation),
        format!("  sequence = {}", beacon.sequence),
        format!("  heard_age_ms = {}", beacon.heard_age_ms),
        format!("  in_flight = {}", beacon.in_flight),
        format!("  load_permille = {}", beacon.load_permille),
        format!("  draining = {}", beacon.draining),
    ];
    let entry = |name: &str, signed: &Bytes| format!("  {name} = \"{}\"", signed.escape_ascii());
    lines.extend(beacon.siblings.iter().map(|id| format!("  siblings = {id}")));
    lines.extend(beacon.heads.iter().map(|head| entry("heads", head)));
    lines.extend(beacon.revocations.iter().map(|signed| entry("revocations", signed)));
    lines
}

fn show_hello(hello: &Hello) -> Vec<String> {
    let mut lines = vec![
        "HELLO".into(),
        format!("  version_min = {}", hello.versions.min),
        format!("  version_max = {}", hello.versions.max),
        format!("  features = {:?}", hello.features),
        format!("  limits.stream_window_bytes = {}", hello.limits.stream_window_bytes),
        format!("  limits.connection_window_bytes = {}", hello.limits.connection_window_bytes),
        format!("  limits.streams_max = {}", hello.limits.streams_max),
        format!("  gateway_id = {}", hello.gateway),
        format!("  incarnation = {:#018x}", hello.incarnation),
        format!("  connection_class = {}", hello.class.as_str()),
        format!("  worker = {}", hello.worker),
    ];
    if !hello.head.is_empty() {
        lines.push(format!("  head = \"{}\"", hello.head.escape_ascii()));
    }
    lines.extend(hello.siblings.iter().map(|id| format!("  siblings = {id}")));
    lines
}

fn show_open(open: &Open) -> Vec<String> {
    let mut lines = vec![
        "OPEN".into(),
        format!("  kind = {}", open.kind.as_str()),
        format!("  namespace = {}", open.service.namespace),
        format!("  service = {}", open.service.name),
        format!("  port = {}", open.port),
        format!("  source = {}", open.source),
        format!("  unattested = {}", open.unattested),
    ];
    if let Some(trace) = &open.trace {
        let hex = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            })
        };
        let (trace_id, parent_id) = (hex(&trace.trace_id), hex(&trace.parent_id));
        lines.push(format!("  trace_context = {trace_id} {parent_id} {:02x}", trace.flags));
        lines.push(format!("  trace_state = {}", trace.state));
    }
    lines.extend(open.deadline_ms.map(|value| format!("  deadline_ms = {value}")));
    lines.push(format!("  request_id = {}", open.request_id));
    lines.push(format!("  attempt = {}", open.attempt));
    lines.push(format!("  retries_left = {}", open.retries_left));
    lines.extend(open.via.clusters().iter().map(|cluster| format!("  via = {cluster}")));
    lines.extend(open.route.map(|route| {
        let side = match route.side {
            RouteSide::Producer => "producer",
            RouteSide::Consumer => "consumer",
        };
        let revision = route.revision;
        format!("  route = {side}, epoch {}, generation {}", revision.epoch, revision.index)
    }));
    lines
}

fn show_request(head: &RequestHead) -> Vec<String> {
    let mut lines = vec!["HEAD request".into(), format!("  method = {}", head.method)];
    lines.extend(head.uri.scheme().map(|scheme| format!("  scheme = {scheme}")));
    lines.extend(head.uri.authority().map(|authority| format!("  authority = {authority}")));
    lines.extend(head.uri.path_and_query().map(|path| format!("  path = {path}")));
    lines.extend(head.protocol.as_ref().map(|protocol| format!("  protocol = {protocol}")));
    show_fields(&head.headers, &mut lines);
    lines
}

fn show_response(head: &ResponseHead) -> Vec<String> {
    let mut lines = vec!["HEAD response".into(), format!("  status = {}", head.status.as_str())];
    show_fields(&head.headers, &mut lines);
    lines
}

fn show_fields(headers: &HeaderMap, lines: &mut Vec<String>) {
    for (name, value) in headers {
        lines.push(format!("  {name}: {}", value.as_bytes().escape_ascii()));
    }
}
