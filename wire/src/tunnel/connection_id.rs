//! QUIC connection ids: which worker of which gateway a packet belongs to, readable without keys.

use super::error::DecodeError;
use super::limits::WORKERS_MAX;

/// Every connection id has this length.
pub const CONNECTION_ID_BYTES: usize = 16;

/// The parts of a connection id that a gateway issues: `rotation << 5 | worker` in one byte, then
/// the server id (where QUIC-LB's unencrypted form and AWS's QUIC balancer look for it), then a
/// nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    rotation: u8,
    worker: u8,
    server: [u8; 8],
    nonce: [u8; 7],
}

impl ConnectionId {
    /// `rotation` has 3 bits, `worker` 5.
    pub fn new(
        rotation: u8,
        worker: u8,
        server: [u8; 8],
        nonce: [u8; 7],
    ) -> Result<Self, DecodeError> {
        if rotation > 7 {
            let problem = "it has more than 3 bits";
            let fix = "use a rotation from 0 to 7";
            return Err(DecodeError::malformed("connection id rotation", rotation, problem, fix));
        }
        if u32::from(worker) >= WORKERS_MAX {
            let problem = "it has more than 5 bits";
            let fix = "use a worker from 0 to 31";
            return Err(DecodeError::malformed("connection id worker", worker, problem, fix));
        }
        Ok(Self { rotation, worker, server, nonce })
    }

    pub fn to_bytes(&self) -> [u8; CONNECTION_ID_BYTES] {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        bytes[0] = self.rotation << 5 | self.worker;
        bytes[1..9].copy_from_slice(&self.server);
        bytes[9..].copy_from_slice(&self.nonce);
        bytes
    }

    /// Reads an id of ours from a packet. Whether its server id is this gateway's is for the caller
    /// to compare: a client's first packets carry ids that the client made up.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bytes: &[u8; CONNECTION_ID_BYTES] = bytes.try_into().map_err(|_| {
            DecodeError::malformed(
                "connection id",
                format!("{} bytes", bytes.len()),
                "it is not 16 bytes long",
                "send the id that the gateway issued",
            )
        })?;
        let (mut server, mut nonce) = ([0; 8], [0; 7]);
        server.copy_from_slice(&bytes[1..9]);
        nonce.copy_from_slice(&bytes[9..]);
        Ok(Self { rotation: bytes[0] >> 5, worker: bytes[0] & 0x1f, server, nonce })
    }

    pub fn rotation(&self) -> u8 {
        self.rotation
    }

    pub fn worker(&self) -> u8 {
        self.worker
    }

    pub fn server(&self) -> [u8; 8] {
        self.server
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rotation_and_worker_round_trips() {
        for rotation in 0..8 {
            for worker in 0..32 {
                let id = ConnectionId::new(rotation, worker, [7; 8], [9; 7]).unwrap();
                let back = ConnectionId::decode(&id.to_bytes()).unwrap();
                assert_eq!((back, back.rotation(), back.worker()), (id, rotation, worker));
            }
        }
    }

    #[test]
    fn bad_parts_are_named() {
        for (got, text) in [
            (ConnectionId::new(8, 0, [0; 8], [0; 7]), "rotation = 8: it has more than 3 bits"),
            (ConnectionId::new(0, 32, [0; 8], [0; 7]), "worker = 32: it has more than 5 bits"),
            (ConnectionId::decode(&[0; 15]), "connection id = 15 bytes: it is not 16 bytes long"),
            (ConnectionId::decode(&[0; 17]), "connection id = 17 bytes: it is not 16 bytes long"),
        ] {
            let error = got.unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
