//! The test vectors of `docs/reference/tunnel-vectors/`: the encoder must give the hex, the decoder
//! the meaning or the error's text.

use bytes::Bytes;
use http::Method;
use wire::relay::{Preamble, StreamAnswer, StreamRequest, body_length};
use wire::tunnel::{ConnectionId, Datagram, FrameDecoder, FrameOrder, StreamReset, varint};

use super::{built, show};
use crate::vectors::{Built, Vector, check, hex, text};

#[test]
fn streams() {
    check_file("streams.txt", &built::streams(), read_stream);
}

#[test]
fn bad_streams() {
    check_file("bad-streams.txt", &built::bad_streams(), read_stream);
}

#[test]
fn varints() {
    check_file("varints.txt", &built::varints(), |_, bytes| {
        let (value, length) = varint::decode(bytes).ok_or("the bytes end within the integer")?;
        Ok(vec![format!("{value} in {length} bytes")])
    });
}

#[test]
fn datagrams() {
    check_file("datagrams.txt", &built::datagrams(), |_, bytes| {
        let datagram = Datagram::decode(Bytes::copy_from_slice(bytes)).map_err(text)?;
        let payload = datagram.payload.escape_ascii();
        Ok(vec![format!("flow = {}", datagram.flow), format!("payload = \"{payload}\"")])
    });
}

#[test]
fn connection_ids() {
    check_file("connection-ids.txt", &built::connection_ids(), |_, bytes| {
        let id = ConnectionId::decode(bytes).map_err(text)?;
        assert_eq!(id.to_bytes(), bytes);
        Ok(vec![
            format!("rotation = {}", id.rotation()),
            format!("worker = {}", id.worker()),
            format!("server = {}", hex(&id.server())),
        ])
    });
}

#[test]
fn relay() {
    check_file("relay.txt", &built::relay(), |vector, bytes| {
        let (header, body) = bytes.split_first_chunk().ok_or("it has no header")?;
        let length = body_length(*header).map_err(text)?;
        assert_eq!(length, body.len());
        match vector.of.as_str() {
            "Preamble" => {
                let preamble = Preamble::decode(body).map_err(text)?;
                let peer = preamble.peer.as_ref();
                let (cluster, id) = peer
                    .map_or_else(Default::default, |(name, id)| (name.to_string(), id.to_string()));
                Ok(vec![
                    format!("protocol = {:?}", preamble.protocol),
                    format!("cluster = {cluster:?}"),
                    format!("spiffe_id = {id:?}"),
                    format!("remote = {}", preamble.remote),
                ])
            }
            "StreamRequest" => {
                let request = StreamRequest::decode(body).map_err(text)?;
                Ok(vec![format!("cluster = {:?}", request.cluster.as_str())])
            }
            "StreamAnswer" => Ok(vec![format!("{:?}", StreamAnswer::decode(body).map_err(text)?)]),
            other => panic!("{other}"),
        }
    });
}

/// Here the hex is the QUIC application error code as RESET_STREAM has it: a varint.
#[test]
fn resets() {
    check_file("resets.txt", &built::resets(), |_, bytes| {
        let (packed, _) = varint::decode(bytes).ok_or("the bytes end within the code")?;
        Ok(vec![StreamReset::unpack(packed).to_string()])
    });
}

/// Reads one direction of a stream and its FIN.
fn read_stream(vector: &Vector, bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut order = match &*vector.stream {
        "frames" => None,
        "control" => Some(FrameOrder::control()),
        "initiator" => Some(FrameOrder::initiator()),
        "acceptor tcp" => Some(FrameOrder::acceptor_tcp()),
        other => {
            let method = other.strip_prefix("acceptor http ").expect("stream: is of a known kind");
            Some(FrameOrder::acceptor_http(&method.parse::<Method>().unwrap()))
        }
    };
    let mut decoder = FrameDecoder::new();
    decoder.push(Bytes::copy_from_slice(bytes));
    let mut lines = Vec::new();
    while let Some(frame) = decoder.next().map_err(text)? {
        if let Some(order) = &mut order {
            order.check(&frame).map_err(text)?;
        }
        lines.extend(show::frame(&frame));
    }
    decoder.finish().map_err(text)?;
    match order {
        // The control stream does not end.
        Some(order) if vector.stream != "control" => order.finish().map_err(text)?,
        _ => {}
    }
    Ok(lines)
}

fn check_file(
    file: &str,
    built: &Built,
    read: impl Fn(&Vector, &[u8]) -> Result<Vec<String>, String>,
) {
    check(&format!("tunnel-vectors/{file}"), built, read);
}
