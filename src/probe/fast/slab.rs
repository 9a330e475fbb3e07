//! The probes in flight, each in a slot that is used again.

use super::probe::FastProbe;

/// The identity of a probe in flight: its slot, and a generation that tells it from earlier probes
/// of the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProbeId {
    slot: u32,
    generation: u32,
}

impl ProbeId {
    /// Returns the identity as an epoll event carries it.
    pub(super) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    pub(super) fn from_u64(data: u64) -> Self {
        Self { slot: data as u32, generation: (data >> 32) as u32 }
    }
}

/// All probes in flight. A start and an end take constant time, and a slot is freed at the end.
#[derive(Default)]
pub(super) struct Slab {
    slots: Vec<Option<FastProbe>>,
    free: Vec<u32>,
    generation: u32,
}

impl Slab {
    /// Returns the number of probes in flight.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Reserves a slot. [`fill`](Self::fill) or [`release`](Self::release) must follow.
    pub(super) fn reserve(&mut self) -> ProbeId {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        ProbeId { slot, generation: self.generation }
    }

    pub(super) fn fill(&mut self, id: ProbeId, mut probe: FastProbe) {
        probe.generation = id.generation;
        self.slots[id.slot as usize] = Some(probe);
    }

    /// Frees a slot that was reserved and not filled.
    pub(super) fn release(&mut self, id: ProbeId) {
        self.free.push(id.slot);
    }

    pub(super) fn contains(&self, id: ProbeId) -> bool {
        self.get(id).is_some()
    }

    pub(super) fn get(&self, id: ProbeId) -> Option<&FastProbe> {
        let probe = self.slots.get(id.slot as usize)?.as_ref()?;
        (probe.generation == id.generation).then_some(probe)
    }

    pub(super) fn get_mut(&mut self, id: ProbeId) -> Option<&mut FastProbe> {
        let probe = self.slots.get_mut(id.slot as usize)?.as_mut()?;
        (probe.generation == id.generation).then_some(probe)
    }

    pub(super) fn remove(&mut self, id: ProbeId) -> Option<FastProbe> {
        if !self.contains(id) {
            return None;
        }
        self.free.push(id.slot);
        self.slots[id.slot as usize].take()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &FastProbe> {
        self.slots.iter().flatten()
    }
}
