//! A database and all that is known of it: hears verdicts, tells what came of them, and decides anew when it must.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{info, warn};

use super::histogram::{Histogram, ms};
use super::{Counts, DatabaseSnapshot, Report, TargetSnapshot};
use crate::config::{Database, DatabaseId};
use crate::health::{self, Health, State, Streak, Transition, Verdict};
use crate::news::{News, Teller};
use crate::plan::{self, Candidate, Member, Members, Plan};

/// How long tries take.
const DURATIONS: [Duration; 14] = [
    Duration::from_micros(500),
    ms(1),
    Duration::from_micros(2500),
    ms(5),
    ms(10),
    ms(25),
    ms(50),
    ms(100),
    ms(250),
    ms(500),
    ms(1000),
    ms(2500),
    ms(5000),
    ms(10_000),
];

pub(super) struct Watched {
    database: Arc<Database>,
    targets: Vec<TargetSnapshot>,
    plan: watch::Sender<Plan>,
    check_duration: Histogram,
    news: Teller,
}

impl Watched {
    pub fn new(database: &Arc<Database>, news: Teller, now: Instant) -> Self {
        let targets: Vec<TargetSnapshot> = database
            .addresses
            .iter()
            .map(|address| TargetSnapshot {
                member: Member { ip: address.ip, hostname: address.hostname.clone() },
                health: Health::new(now),
                last: None,
                counts: Counts::default(),
            })
            .collect();
        let (plan, _) = watch::channel(decide(&targets));
        Self { database: database.clone(), targets, plan, check_duration: Histogram::new(&DURATIONS), news }
    }

    pub fn plan(&self) -> watch::Receiver<Plan> {
        self.plan.subscribe()
    }

    pub fn snapshot(&self) -> DatabaseSnapshot {
        DatabaseSnapshot {
            id: self.database.id.clone(),
            plan: self.plan.borrow().clone(),
            targets: self.targets.clone(),
            refused: self.database.refused.clone(),
            check_duration: self.check_duration.clone(),
        }
    }

    /// Takes the verdict on the target numbered `index`. Returns whether its state is in doubt since.
    pub fn hear(&mut self, index: usize, report: &Report) -> bool {
        let &Report { ref verdict, started, ended: now, .. } = report;
        let duration = now.saturating_duration_since(started);
        self.check_duration.observe(duration);
        let target = &mut self.targets[index];
        target.last = Some((now, duration));
        match verdict {
            Verdict::Pass => target.counts.pass += 1,
            Verdict::Fail(_) => target.counts.fail += 1,
            Verdict::Inconclusive(_) => target.counts.inconclusive += 1,
        }
        self.tell_of_inconclusive(index, verdict);
        let target = &mut self.targets[index];
        let thresholds = self.database.addresses[index].check.thresholds;
        let first = !target.health.tried();
        let transition = health::observe(&mut target.health, verdict, thresholds, now);
        self.tell(index, transition);
        self.tell_people(index, transition, now);
        self.tell_of_unseen(index);
        if first || transition.is_some() {
            self.decide();
        }
        self.targets[index].health.in_doubt()
    }

    pub fn see(&mut self, members: &Members, now: Instant) {
        for index in 0..self.targets.len() {
            let target = &mut self.targets[index];
            let published = members.contains(target.member.ip);
            let thresholds = self.database.addresses[index].check.thresholds;
            let transition = health::see(&mut target.health, published, thresholds, now);
            self.tell(index, transition);
            self.tell_people(index, transition, now);
        }
        self.decide();
    }

    /// Counts a transition, and tells it.
    fn tell(&mut self, index: usize, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        let target = &mut self.targets[index];
        let DatabaseId { namespace, service } = &self.database.id;
        let address = target.member.ip;
        match transition.to {
            State::Up => {
                target.counts.to_up += 1;
                info!(%namespace, %service, %address, from = %transition.from, "target is up");
            }
            State::Down => {
                target.counts.to_down += 1;
                let reason = target.health.reason().unwrap_or_default();
                warn!(%namespace, %service, %address, from = %transition.from, reason, "target is down");
            }
            State::Unknown => unreachable!("no target becomes unknown"),
        }
    }

    /// Tells a transition to those who do not read the log. That a target is up which nobody knew to be down is no news to
    /// them: it may have been so for years before this daemon came.
    fn tell_people(&self, index: usize, transition: Option<Transition>, now: Instant) {
        let Some(Transition { from, to }) = transition else { return };
        if (from, to) == (State::Unknown, State::Up) {
            return;
        }
        let target = &self.targets[index];
        self.news.tell(|| News {
            about: self.database.id.clone(),
            reason: if to == State::Up { "TargetUp" } else { "TargetDown" }.into(),
            action: "Check",
            warning: to == State::Down,
            subject: target.member.ip.to_string(),
            note: match target.health.reason() {
                Some(reason) if to == State::Down => format!("{} is down: {reason}", target.member.ip),
                _ => format!("{} is {to}", target.member.ip),
            },
            at: now,
        });
    }

    /// Decides anew. Only a transition, or the first verdict of a target, can change a plan.
    fn decide(&self) {
        let plan = decide(&self.targets);
        self.plan.send_if_modified(|held| std::mem::replace(held, plan.clone()) != plan);
    }

    /// Tells once that a target fails, where its health can't: it has none before the cluster has been seen.
    fn tell_of_unseen(&self, index: usize) {
        let health = &self.targets[index].health;
        let unhealthy = self.database.addresses[index].check.thresholds.unhealthy;
        if health.state() == State::Unknown && health.streak() == Streak::Failures(unhealthy) {
            let DatabaseId { namespace, service } = &self.database.id;
            let (address, reason) = (self.targets[index].member.ip, health.reason().unwrap_or_default());
            warn!(%namespace, %service, %address, reason, "target fails; it will be down once the cluster has been read");
        }
    }

    /// Tells once that tries have become inconclusive, not at every try.
    fn tell_of_inconclusive(&self, index: usize, verdict: &Verdict) {
        let target = &self.targets[index];
        if let Verdict::Inconclusive(reason) = verdict
            && target.health.reason() != Some(reason)
        {
            let DatabaseId { namespace, service } = &self.database.id;
            warn!(%namespace, %service, address = %target.member.ip, reason, "check is inconclusive; health stays as it is");
        }
    }
}

fn decide(targets: &[TargetSnapshot]) -> Plan {
    plan::decide(targets.iter().map(|target| Candidate {
        member: &target.member,
        state: target.health.state(),
        tried: target.health.tried(),
        reason: target.health.reason(),
    }))
}
