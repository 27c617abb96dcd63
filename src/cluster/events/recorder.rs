//! Writes events so that each says what is true at its time.
//!
//! The note of an event cannot be changed, so only what says the very same is counted as a repeat; what differs is an
//! event of its own. Of one object and reason there are at most [`NOTES`] of them in [`KEPT`]: what comes beyond that is
//! told by one event that names no details, as they would be false the next time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::super::client::{CallError, call};

use crate::check::Text;

/// How many notes of one object and reason are events of their own.
const NOTES: usize = 10;
/// For how long an event is counted on. The API server keeps events for an hour by default.
const KEPT: Duration = Duration::from_secs(600);
/// In place of one note too many.
const OFTEN: &str = "this changes too often for an event each time; the status says what holds now";

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub warning: bool,
    pub reason: String,
    pub note: String,
    pub action: &'static str,
}

/// Of which object, and as what.
type Subject = (Text, String);

#[derive(Clone, Debug)]
struct Known {
    note: String,
    name: String,
    count: i32,
    at: Instant,
}

/// What to do about something that is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A new event with this note.
    Create(String),
    /// The event of this name has happened so many times.
    Count(String, i32),
}

/// What was told of late. Pure.
#[derive(Debug, Default)]
struct Memory(HashMap<Subject, Vec<Known>>);

impl Memory {
    fn step(&mut self, subject: &Subject, note: &str, now: Instant) -> Step {
        self.0.retain(|_, events| {
            events.retain(|event| now.duration_since(event.at) < KEPT);
            !events.is_empty()
        });
        let events = self.0.get(subject).map(Vec::as_slice).unwrap_or_default();
        let find = |note: &str| events.iter().find(|event| event.note == note);
        let fits = events.iter().filter(|event| event.note != OFTEN).count() < NOTES;
        let note = if fits || find(note).is_some() { note } else { OFTEN };
        find(note)
            .map_or_else(|| Step::Create(note.to_owned()), |event| Step::Count(event.name.clone(), event.count + 1))
    }

    fn wrote(&mut self, subject: &Subject, note: &str, name: &str, count: i32, now: Instant) {
        let events = self.0.entry(subject.clone()).or_default();
        events.retain(|event| event.name != name);
        events.push(Known { note: note.to_owned(), name: name.to_owned(), count, at: now });
    }

    fn forget(&mut self, subject: &Subject, name: &str) -> Option<String> {
        let events = self.0.get_mut(subject)?;
        let at = events.iter().position(|event| event.name == name)?;
        Some(events.swap_remove(at).note)
    }
}

/// See the module's own words.
pub(super) struct Recorder {
    client: Client,
    controller: &'static str,
    instance: String,
    memory: Memory,
}

impl Recorder {
    pub fn new(client: Client, controller: &'static str, instance: String) -> Self {
        Self { client, controller, instance, memory: Memory::default() }
    }

    /// The event to be written for `told`.
    pub fn begin(&mut self, told: &Told, regarding: &ObjectReference) -> Pending {
        let subject = (regarding.uid.as_deref().unwrap_or_default().into(), told.reason.clone());
        let step = self.memory.step(&subject, &told.note, Instant::now());
        let name = format!("{}.{:x}", regarding.name.as_deref().unwrap_or_default(), Timestamp::now().as_nanosecond());
        Pending { subject, step, name }
    }

    /// Writes it. May be called again after an outage: what was written though no answer came is not written twice.
    pub async fn write(
        &mut self,
        pending: &mut Pending,
        told: &Told,
        regarding: &ObjectReference,
    ) -> Result<(), CallError> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), regarding.namespace.as_deref().unwrap_or("default"));
        if let Step::Count(name, count) = pending.step.clone() {
            let series = EventSeries { count, last_observed_time: MicroTime(Timestamp::now()) };
            let patch = Patch::Merge(json!({"series": series}));
            match call(api.patch(&name, &PatchParams::default(), &patch)).await {
                // It was taken away, or has lived its time.
                Err(CallError::NotFound(_)) => {
                    let note = self.memory.forget(&pending.subject, &name).unwrap_or_else(|| told.note.clone());
                    pending.step = Step::Create(note);
                }
                Ok(_) => {
                    let note = self.memory.forget(&pending.subject, &name).unwrap_or_else(|| told.note.clone());
                    self.memory.wrote(&pending.subject, &note, &name, count, Instant::now());
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let Step::Create(note) = &pending.step else { return Ok(()) };
        let event = self.event(&pending.name, note, told, regarding);
        match call(api.create(&PostParams::default(), &event)).await {
            Ok(_) | Err(CallError::Conflict(_)) => {
                self.memory.wrote(&pending.subject, note, &pending.name, 1, Instant::now());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn event(&self, name: &str, note: &str, told: &Told, regarding: &ObjectReference) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: regarding.namespace.clone(),
                ..ObjectMeta::default()
            },
            type_: Some(if told.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(told.reason.clone()),
            note: Some(note.to_owned()),
            action: Some(told.action.to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            regarding: Some(regarding.clone()),
            reporting_controller: Some(self.controller.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

/// An event on its way.
#[derive(Debug)]
pub(super) struct Pending {
    subject: Subject,
    step: Step,
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        ("u".into(), "GateFailOpen".into())
    }

    /// Tells `notes` at `now`; what was done for each.
    fn tell(memory: &mut Memory, notes: &[&str], now: Instant) -> Vec<String> {
        let mut told = |note: &&str| match memory.step(&subject(), note, now) {
            Step::Create(note) => {
                let name = format!("event of {note}");
                memory.wrote(&subject(), &note, &name, 1, now);
                format!("new: {note}")
            }
            Step::Count(name, count) => {
                let note = memory.forget(&subject(), &name).expect("it was told");
                memory.wrote(&subject(), &note, &name, count, now);
                format!("{count}: {note}")
            }
        };
        notes.iter().map(&mut told).collect()
    }

    #[test]
    fn what_says_the_same_is_counted_and_what_differs_is_an_event_of_its_own() {
        let mut memory = Memory::default();
        let now = Instant::now();
        assert_eq!(
            tell(&mut memory, &["a is out", "b is out", "a is out", "a is out"], now),
            ["new: a is out", "new: b is out", "2: a is out", "3: a is out"]
        );
        assert_eq!(tell(&mut memory, &["a is out"], now + KEPT), ["new: a is out"], "it is another incident");
        let other = ("v".into(), "GateFailOpen".into());
        assert_eq!(memory.step(&other, "a is out", now + KEPT), Step::Create("a is out".into()), "of another object");
    }

    #[test]
    fn a_flood_of_notes_ends_in_one_that_names_no_details() {
        let mut memory = Memory::default();
        let now = Instant::now();
        let notes: Vec<_> = (0..NOTES + 3).map(|at| format!("{at} is out")).collect();
        let notes: Vec<&str> = notes.iter().map(String::as_str).collect();
        let told = tell(&mut memory, &notes, now);
        assert!(told[..NOTES].iter().zip(&notes).all(|(told, note)| *told == format!("new: {note}")), "{told:?}");
        assert_eq!(told[NOTES..], [format!("new: {OFTEN}"), format!("2: {OFTEN}"), format!("3: {OFTEN}")]);
        assert_eq!(tell(&mut memory, &["0 is out"], now), ["2: 0 is out"], "which is true again");
        assert_eq!(memory.0[&subject()].len(), NOTES + 1);
    }
}
