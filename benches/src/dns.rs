//! A bare DNS server for thousands of names: each has the address of the target with its number.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

use crate::machine;
use crate::workload;

/// The behavior of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behavior {
    /// Answers with this TTL, in seconds.
    Answers(u32),
    Silent,
    /// Answers with bytes of no protocol, and with answers to other questions.
    Hostile,
}

/// A server that runs for the lifetime of the program.
pub(crate) struct DnsServer {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    questions: AtomicU64,
    /// The names that were asked, by number, and the time of the newest first question.
    asked: Mutex<(Vec<bool>, usize, u64)>,
}

/// Returns the name of the target with this number.
pub(crate) fn name(number: usize) -> String {
    format!("t{number}.bench.example")
}

impl DnsServer {
    /// Starts a server on a free port, on this CPU.
    pub(crate) fn start(cpu: usize, behavior: Behavior) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("a UDP port")?;
        let (address, state) = (socket.local_addr()?, Arc::<State>::default());
        let served = Arc::clone(&state);
        thread::Builder::new().name("dns".into()).spawn(move || {
            machine::pin(cpu).expect("a CPU for the name server");
            serve(&socket, behavior, &served);
        })?;
        Ok(Self { address, state })
    }

    /// Returns the number of questions so far.
    pub(crate) fn questions(&self) -> u64 {
        self.state.questions.load(Ordering::Relaxed)
    }

    /// Returns the number of names that were asked, and the time of the newest first question.
    pub(crate) fn asked(&self) -> (usize, u64) {
        let asked = self.state.asked.lock().unwrap_or_else(PoisonError::into_inner);
        (asked.1, asked.2)
    }

    /// Forgets which names were asked.
    pub(crate) fn forget(&self) {
        *self.state.asked.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }
}

fn serve(socket: &UdpSocket, behavior: Behavior, state: &State) {
    let mut buffer = [0; 1500];
    loop {
        // An error belongs to an earlier answer, whose port was closed.
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        state.questions.fetch_add(1, Ordering::Relaxed);
        let query = &buffer[..length];
        let number = number(query);
        if let Some(number) = number {
            count(state, number);
        }
        let answer = match behavior {
            Behavior::Silent => continue,
            Behavior::Answers(ttl) => answer(query, number, ttl),
            // The right ID and a wrong end, or another ID and a right end.
            Behavior::Hostile if number.is_some_and(|number| number % 2 == 0) => {
                answer(query, number, 1).map(|answer| [&answer[..20], &[0xc0; 400]].concat())
            }
            Behavior::Hostile => answer(query, number, 1).map(|mut answer| {
                answer[0] ^= 0xff;
                answer
            }),
        };
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, client);
        }
    }
}

fn count(state: &State, number: usize) {
    let mut asked = state.asked.lock().unwrap_or_else(PoisonError::into_inner);
    let (names, count, newest) = &mut *asked;
    if names.len() <= number {
        names.resize(number + 1, false);
    }
    if !std::mem::replace(&mut names[number], true) {
        (*count, *newest) = (*count + 1, machine::now());
    }
}

const HEADER: usize = 12;

/// Returns the number of the name that is asked.
fn number(query: &[u8]) -> Option<usize> {
    let length = usize::from(*query.get(HEADER)?);
    let label = query.get(HEADER + 1..HEADER + 1 + length)?;
    std::str::from_utf8(label).ok()?.strip_prefix('t')?.parse().ok()
}

/// Returns the answer to a question (RFC 1035, 4.1): the address, or no such name.
fn answer(query: &[u8], number: Option<usize>, ttl: u32) -> Option<Vec<u8>> {
    let name = query.get(HEADER..)?.iter().position(|byte| *byte == 0)?;
    let question = query.get(HEADER..HEADER + name + 5)?;
    let is_a = question[name + 1..=name + 2] == [0, 1];
    let (code, count) = if number.is_some() { (0, u8::from(is_a)) } else { (3, 0) };
    let mut answer = vec![query[0], query[1], 0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0];
    answer.extend(question);
    if let Some(number) = number.filter(|_| is_a) {
        // The name of the question, A, IN.
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(workload::address(number).octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str) -> Vec<u8> {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).expect("a short label"));
            query.extend(label.bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        query
    }

    #[test]
    fn a_name_has_the_address_of_its_number() {
        let asked = query(&name(7));
        assert_eq!(number(&asked), Some(7));
        let answer = answer(&asked, Some(7), 60).expect("a whole question");
        assert_eq!(answer[..4], [7, 9, 0x81, 0x80]);
        assert_eq!(answer[asked.len()..][..12], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        assert_eq!(answer[asked.len() + 12..], workload::address(7).octets());
    }

    #[test]
    fn other_names_do_not_exist() {
        let asked = query("db.bench.example");
        assert_eq!(number(&asked), None);
        assert_eq!(answer(&asked, None, 60).expect("an answer")[3], 0x83);
        assert_eq!(answer(&asked[..14], None, 60), None);
    }
}
