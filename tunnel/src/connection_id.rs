//! Connection ids that say which worker they belong to, so that any worker can hand a packet over.

use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;
use wire::tunnel::{CONNECTION_ID_BYTES, ConnectionId as WireId};

/// Issues one worker's connection ids.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerIds {
    pub(crate) server: [u8; 8],
    pub(crate) worker: u8,
}

/// The rotation that is written; another one would say that ids are encrypted in another way.
const ROTATION: u8 = 0;

impl ConnectionIdGenerator for WorkerIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let id = WireId::new(ROTATION, self.worker, self.server, rand::random())
            .expect("a worker's number was checked when the tunnel was bound");
        ConnectionId::new(&id.to_bytes())
    }

    /// Ids of another server get no stateless reset from us: they were never ours.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match WireId::decode(id) {
            Ok(id) if id.server() == self.server => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// Which worker of the gateway `server` a datagram belongs to, judged by its first packet's
/// destination id. `None`: it carries no id of ours, such as the first packet of a handshake.
pub(crate) fn worker_of(datagram: &[u8], server: &[u8; 8]) -> Option<u8> {
    const LONG_HEADER: u8 = 0x80;
    let id = match *datagram.first()? {
        // RFC 9000 §17.2: flags, version (4), length of the destination id, the id.
        first if first & LONG_HEADER != 0 => {
            if usize::from(*datagram.get(5)?) != CONNECTION_ID_BYTES {
                return None;
            }
            datagram.get(6..6 + CONNECTION_ID_BYTES)?
        }
        // RFC 9000 §17.3: flags, the id.
        _ => datagram.get(1..=CONNECTION_ID_BYTES)?,
    };
    if id[1..9] != *server {
        return None;
    }
    WireId::decode(id).ok().map(|id| id.worker())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: [u8; 8] = [7; 8];

    #[test]
    fn ids_name_their_worker_in_short_and_long_headers() {
        for worker in [0, 1, 31] {
            let id = WorkerIds { server: SERVER, worker }.generate_cid();
            assert_eq!(id.len(), 16);
            let short = [&[0x40][..], &id, &[0; 20]].concat();
            assert_eq!(worker_of(&short, &SERVER), Some(worker));
            let long = [&[0xe0, 0, 0, 0, 1, 16][..], &id, &[0; 20]].concat();
            assert_eq!(worker_of(&long, &SERVER), Some(worker));
            assert_eq!(worker_of(&short, &[8; 8]), None, "another server's id");
        }
    }

    #[test]
    fn what_carries_no_id_of_ours_is_nobodys() {
        let id = WorkerIds { server: SERVER, worker: 3 }.generate_cid();
        let short = [&[0x40][..], &id].concat();
        for end in 0..short.len() {
            assert_eq!(worker_of(&short[..end], &SERVER), None, "cut at {end}");
        }
        let long = [&[0xc0, 0, 0, 0, 1, 16][..], &id].concat();
        for end in 0..long.len() {
            assert_eq!(worker_of(&long[..end], &SERVER), None, "cut at {end}");
        }
        let eight = [&[0xc0, 0, 0, 0, 1, 8][..], &id, &[0; 8]].concat();
        assert_eq!(worker_of(&eight, &SERVER), None, "a client's own first id");
    }

    #[test]
    fn only_ids_of_this_server_are_worth_a_stateless_reset() {
        let ours = WorkerIds { server: SERVER, worker: 1 }.generate_cid();
        assert!(WorkerIds { server: SERVER, worker: 0 }.validate(&ours).is_ok());
        assert!(WorkerIds { server: [8; 8], worker: 1 }.validate(&ours).is_err());
    }
}
