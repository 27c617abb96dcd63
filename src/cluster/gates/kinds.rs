//! The kinds of gates: what each is given, and what it answers.

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Features,
    book::Book,
    candidates::Judged,
    decision::Memory,
    report::GateReport,
    write::{GateKey, GateWrite},
};
use crate::{
    check::{Check, Gate, GateKind, GateReason, Text},
    cluster::reconcile::Reconciler,
    engine::CheckView,
    gate::Freeze,
};

/// What a kind of gate works with.
pub struct KindCtx<'a> {
    pub(super) check: &'a Check,
    pub(super) gate: &'a Gate,
    pub(super) view: &'a CheckView,
    pub(super) reconciler: &'a Reconciler,
    pub(super) judged: Judged<'a>,
    pub(super) memory: &'a mut Memory,
    pub(super) book: &'a Book,
    /// When what was lost together is believed, if what is left stays well.
    pub(super) believed_at: Option<Timestamp>,
    /// Why our own side is in doubt, where it is.
    pub(super) doubt: Option<Freeze>,
    pub(super) features: Features,
    pub(super) now: Instant,
}

/// What a gate does, and what is to be written for it.
#[derive(Debug)]
pub struct Evaluated {
    pub(super) report: GateReport,
    pub(super) writes: Vec<(GateKey, GateWrite)>,
}

impl Evaluated {
    pub(super) fn idle(name: &Text, reason: GateReason, message: impl Into<String>) -> Self {
        Self { report: GateReport::idle(name, reason, message), writes: vec![] }
    }
}

/// What a gate writes to, as far as it is named.
pub(super) fn gates_what(kind: &GateKind) -> Text {
    match kind {
        GateKind::EndpointSlice { service, .. } => service.clone(),
        GateKind::PodReadiness { condition_type, .. } => condition_type.clone(),
        GateKind::Annotation => Text::default(),
    }
}

/// How many endpoints are named in a message.
const NAMED: usize = 3;

pub(super) fn listed(names: &[Text]) -> String {
    let mut text = names.iter().take(NAMED).map(|name| &**name).collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text = format!("{text} and {} more", names.len() - NAMED);
    }
    text
}

impl KindCtx<'_> {
    pub(super) fn evaluate(mut self) -> Evaluated {
        let mut evaluated = self.act();
        self.tell_remains(&mut evaluated);
        evaluated
    }

    fn act(&mut self) -> Evaluated {
        let name = &self.gate.name;
        match &self.gate.kind {
            GateKind::EndpointSlice { service, .. } if !self.features.endpoint_slices => self.slices_off(service),
            GateKind::EndpointSlice { service, port } => self.endpoint_slice(service, port.as_ref()),
            GateKind::PodReadiness { .. } if !self.features.pod_readiness => Evaluated::idle(
                name,
                GateReason::Forbidden,
                "podReadiness gates are switched off here, and new pods wait for ever; take readinessGates out of their template, or have them turned on (features.podReadiness)",
            ),
            GateKind::PodReadiness { condition_type, selector } => {
                self.pod_readiness(condition_type, selector.as_ref())
            }
            GateKind::Annotation => self.annotation(),
        }
    }

    /// It tells, and withholds nothing: `cluster::annotation_plan` writes it.
    fn annotation(&self) -> Evaluated {
        let healthy = self.view.endpoints.iter().filter(|row| row.state.is_healthy()).count();
        let total = self.view.endpoints.len();
        let report = GateReport {
            desired: healthy as u32,
            published: total as u32,
            ..GateReport::idle(&self.gate.name, GateReason::Enforced, "")
        };
        Evaluated { report, writes: vec![] }
    }
}
