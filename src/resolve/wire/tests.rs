//! Replies that no server should send: none makes the reader panic or take long.

use std::str::FromStr as _;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock;

const ID: u16 = 7;

fn question(kind: RecordKind) -> Question {
    Question { name: WireName::from_str("db.corp.example").expect("a name"), kind }
}

/// Returns the header and the question of a reply that promises this many records.
fn reply_head(kind: RecordKind, answers: u16) -> Vec<u8> {
    let mut reply = question(kind).to_bytes(ID, Edns::Omitted);
    reply[2] |= 0x80;
    reply[3] |= 0x80;
    reply[6..8].copy_from_slice(&answers.to_be_bytes());
    reply
}

/// Returns a record of the name in the question, with this type and data.
fn record(rtype: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("short data").to_be_bytes();
    [&[0xc0, 12, 0, rtype, 0, 1, 0, 0, 0, 60][..], &length, data].concat()
}

const A: u8 = 1;
const CNAME: u8 = 5;
const SRV: u8 = 33;

fn read(kind: RecordKind, bytes: &[u8]) -> Reply {
    question(kind).read(bytes, ID, Edns::Omitted)
}

fn garbage() -> Reply {
    Reply::Failed(ServerFailure::Garbage)
}

#[test]
fn a_plain_reply_is_read() {
    let records = [record(A, &[10, 0, 0, 2]), record(A, &[10, 0, 0, 1])].concat();
    let reply = [reply_head(RecordKind::A, 2), records].concat();
    let ips = vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
    let records = Records::Addresses(ips);
    let expected = Reply::Records { records, ttl: 60, aliases: Vec::new() };
    assert_eq!(read(RecordKind::A, &reply), expected);
}

#[test]
fn the_corpus_of_bad_replies_is_refused() {
    let head = reply_head(RecordKind::A, 1);
    let here = u16::try_from(head.len()).expect("a short head");
    let [high, low] = (0xc000 | here).to_be_bytes();
    let rows: [(&str, Vec<u8>); 8] = [
        ("no records at all", vec![]),
        ("a pointer to itself", vec![high, low, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]),
        ("a pointer beyond the end", vec![0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]),
        ("two pointers in a circle", vec![high, low + 2, high, low, 0, 1, 0, 1, 0, 0, 0, 9, 0, 0]),
        ("an A record of three bytes", record(A, &[10, 0, 0])),
        ("an A record of five bytes", record(A, &[10, 0, 0, 1, 1])),
        ("data that ends too early", record(A, &[10, 0, 0, 1])[..14].to_vec()),
        ("an alias to a circle", record(CNAME, &[high, low + 12])),
    ];
    for (about, records) in rows {
        assert_eq!(read(RecordKind::A, &[&head[..], &records].concat()), garbage(), "{about}");
    }
    let srv = [reply_head(RecordKind::Srv, 1), record(SRV, &[0, 1, 0, 1, 0, 1])].concat();
    assert_eq!(read(RecordKind::Srv, &srv), garbage(), "an SRV record without a target");
}

#[test]
fn the_largest_replies_are_read_in_milliseconds() {
    let filled = |head: Vec<u8>, record: &[u8]| {
        let space = 65_535 - head.len();
        [head, record.iter().copied().cycle().take(space).collect()].concat()
    };
    // A chain of pointers, each to the one before: the name of each record is read through all.
    let head = reply_head(RecordKind::A, u16::MAX);
    let mut chain = head.clone();
    while chain.len() < 16_000 {
        let before = u16::try_from(chain.len() - 2).expect("a short message");
        chain.extend((0xc000 | before).to_be_bytes());
    }
    let rows = [
        ("noise", filled(head.clone(), &[0xff])),
        ("zeros", filled(head.clone(), &[0])),
        ("promised records", head.clone()),
        ("thousands of addresses", filled(head.clone(), &record(A, &[10, 0, 0, 1]))),
        ("thousands of aliases to itself", filled(head.clone(), &record(CNAME, &[0xc0, 12]))),
        ("pointers", filled(chain, &[0xc0, 12])),
        ("labels of one letter", filled(head, &[1, b'a'])),
    ];
    for (about, bytes) in rows {
        for kind in [RecordKind::A, RecordKind::Srv] {
            let start = clock::now();
            let _ = read(kind, &bytes);
            let took = start.elapsed();
            assert!(took < Duration::from_millis(500), "{about}: {took:?}");
        }
    }
}

#[test]
fn a_referral_is_no_answer() {
    let mut reply = reply_head(RecordKind::A, 0);
    assert_eq!(read(RecordKind::A, &reply), Reply::NoRecords, "of a recursor");
    reply[3] &= !0x80;
    assert_eq!(read(RecordKind::A, &reply), Reply::Failed(ServerFailure::Referral));
    reply[2] |= 0x04;
    assert_eq!(read(RecordKind::A, &reply), Reply::NoRecords, "of an authority");
}

#[test]
fn records_of_other_names_and_classes_do_not_count() {
    let mut of_another_class = record(A, &[10, 0, 0, 1]);
    of_another_class[5] = 3;
    // The pointer leads to `corp.example`.
    let mut of_another_name = record(A, &[10, 0, 0, 1]);
    of_another_name[1] = 15;
    for bad in [of_another_class, of_another_name] {
        let reply = [reply_head(RecordKind::A, 1), bad].concat();
        assert_eq!(read(RecordKind::A, &reply), Reply::NoRecords);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for kind in [RecordKind::A, RecordKind::Aaaa, RecordKind::Srv] {
            for head in [Vec::new(), reply_head(kind, 3)] {
                let _ = read(kind, &[&head[..], &bytes].concat());
            }
        }
    }

    #[test]
    fn a_reply_with_changed_bytes_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let alias = record(CNAME, &[0xc0, 15]);
        let service = record(SRV, &[0, 1, 0, 1, 0x69, 0x89, 1, b'a', 0xc0, 12]);
        let address = record(A, &[10, 0, 0, 1]);
        let records = [address.clone(), address, service, alias].concat();
        for kind in [RecordKind::A, RecordKind::Aaaa, RecordKind::Srv] {
            let mut reply = [reply_head(kind, 4), records.clone()].concat();
            for (index, byte) in &changes {
                *index.get_mut(&mut reply) = *byte;
            }
            if let Reply::Records { records: Records::Addresses(ips), .. } = read(kind, &reply) {
                prop_assert!(ips.len() <= 4);
            }
        }
    }
}
