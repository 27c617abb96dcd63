//! Rules over many checks: `healthCheck` targets may nest five deep and never in a circle.

use std::collections::{BTreeMap, HashMap};

use super::Problem;
use crate::check::{Check, ObjectKey, Place};

/// How many checks may lie below one another.
pub const MAX_DEPTH: usize = 5;
/// How many names of a circle a message shows.
const SHOWN: usize = 8;

/// The problems of each check that nests too deep or is, or leads, into a circle. Checks that are not there are the
/// business of whoever looks them up.
#[must_use]
pub fn problems<'a>(checks: impl IntoIterator<Item = &'a Check>) -> BTreeMap<ObjectKey, Vec<Problem>> {
    let graph = Graph::new(checks);
    let depths = graph.depths();
    let endless = graph.endless();
    let mut problems = BTreeMap::<ObjectKey, Vec<Problem>>::new();
    for (node, members) in graph.members.iter().enumerate() {
        for member in members {
            let message = if endless[node] && endless[member.node] {
                graph.circle_message(node, member.node, &endless)
            } else if depths[member.node] + 1 > MAX_DEPTH {
                format!(
                    "HealthChecks nest at most {MAX_DEPTH} deep, and more lie below {}: refer to one further down",
                    graph.keys[member.node].name
                )
            } else {
                continue;
            };
            let field_path = format!("spec.targets[{}].healthCheck.name", member.target);
            problems.entry(graph.keys[node].clone()).or_default().push(Problem { field_path, message });
        }
    }
    problems
}

struct Graph<'a> {
    keys: Vec<&'a ObjectKey>,
    members: Vec<Vec<Member>>,
}

/// A target that is another check.
struct Member {
    target: usize,
    node: usize,
}

impl<'a> Graph<'a> {
    fn new(checks: impl IntoIterator<Item = &'a Check>) -> Self {
        let checks: Vec<&Check> = checks.into_iter().collect();
        let nodes: HashMap<(&str, &str), usize> =
            checks.iter().enumerate().map(|(node, check)| ((&*check.key.namespace, &*check.key.name), node)).collect();
        let members = checks.iter().map(|check| {
            let member = |(target, place): (usize, &Place)| match place {
                Place::Check { name } => {
                    let node = *nodes.get(&(&*check.key.namespace, &**name))?;
                    Some(Member { target, node })
                }
                _ => None,
            };
            check.targets.iter().map(|target| &target.place).enumerate().filter_map(member).collect()
        });
        Self { members: members.collect(), keys: checks.iter().map(|check| &check.key).collect() }
    }

    /// How many checks lie below one another under each check, counted to one more than may be.
    ///
    /// In rounds rather than by recursion, so that a chain of any length costs no stack.
    fn depths(&self) -> Vec<usize> {
        let mut depths = vec![0; self.keys.len()];
        for _ in 0..=MAX_DEPTH {
            depths = self
                .members
                .iter()
                .map(|members| members.iter().map(|member| depths[member.node] + 1).max().unwrap_or(0))
                .collect();
        }
        depths
    }

    /// Which checks are in a circle or lead into one: those that are left when all that end somewhere are taken away.
    fn endless(&self) -> Vec<bool> {
        let mut parents = vec![Vec::new(); self.keys.len()];
        let mut open: Vec<usize> = self.members.iter().map(Vec::len).collect();
        for (node, members) in self.members.iter().enumerate() {
            for member in members {
                parents[member.node].push(node);
            }
        }
        let mut ended: Vec<usize> = (0..open.len()).filter(|node| open[*node] == 0).collect();
        while let Some(node) = ended.pop() {
            for parent in &parents[node] {
                open[*parent] -= 1;
                if open[*parent] == 0 {
                    ended.push(*parent);
                }
            }
        }
        open.into_iter().map(|open| open > 0).collect()
    }

    fn circle_message(&self, from: usize, first: usize, endless: &[bool]) -> String {
        let mut names = vec![&*self.keys[from].name];
        let mut at = first;
        while names.len() < SHOWN {
            names.push(&self.keys[at].name);
            if at == from {
                break;
            }
            // Every endless check has an endless member, or it would have ended.
            let Some(next) = self.members[at].iter().find(|member| endless[member.node]) else { break };
            at = next.node;
        }
        let closed = at == from;
        let tail = if closed { "" } else { " -> …" };
        let circle = if closed { "is a circle" } else { "leads into a circle" };
        format!("{}{tail} {circle} of HealthChecks: take one of them out", names.join(" -> "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Mode, compile};

    fn check(name: &str, members: &[&str]) -> Check {
        let mut targets: Vec<_> =
            members.iter().map(|member| serde_json::json!({"name": member, "healthCheck": {"name": member}})).collect();
        targets.push(serde_json::json!({"name": "leaf", "host": "db", "port": 1}));
        let object = serde_json::json!({
            "apiVersion": crate::api::API_VERSION, "kind": crate::api::KIND,
            "metadata": {"name": name, "namespace": "ns"}, "spec": {"targets": targets},
        });
        compile(&serde_json::from_value(object).expect("readable"), Mode::Cluster).expect("no problem")
    }

    fn found(checks: &[Check]) -> Vec<String> {
        let problems = problems(checks);
        problems
            .iter()
            .flat_map(|(key, list)| list.iter().map(move |problem| format!("{}: {problem}", key.name)))
            .collect()
    }

    #[test]
    fn a_chain_of_five_is_fine_and_six_is_one_too_many() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let chain = |length: usize| -> Vec<Check> {
            (0..=length)
                .map(|i| if i == length { check(names[i], &[]) } else { check(names[i], &[names[i + 1]]) })
                .collect()
        };
        assert_eq!(found(&chain(5)), Vec::<String>::new());
        assert_eq!(
            found(&chain(6)),
            [
                "a: spec.targets[0].healthCheck.name: HealthChecks nest at most 5 deep, and more lie below b: refer to one further down"
            ]
        );
    }

    #[test]
    fn a_circle_is_named_by_all_in_it_and_by_what_leads_into_it() {
        let checks = [check("a", &["b"]), check("b", &["c"]), check("c", &["a"]), check("x", &["a"]), check("y", &[])];
        assert_eq!(
            found(&checks),
            [
                "a: spec.targets[0].healthCheck.name: a -> b -> c -> a is a circle of HealthChecks: take one of them out",
                "b: spec.targets[0].healthCheck.name: b -> c -> a -> b is a circle of HealthChecks: take one of them out",
                "c: spec.targets[0].healthCheck.name: c -> a -> b -> c is a circle of HealthChecks: take one of them out",
                "x: spec.targets[0].healthCheck.name: x -> a -> b -> c -> a -> b -> c -> a -> … leads into a circle of HealthChecks: take one of them out",
            ]
        );
    }

    #[test]
    fn a_check_of_itself_is_a_circle_and_a_diamond_is_none() {
        assert_eq!(found(&[check("a", &["a"])]).len(), 1);
        let diamond = [check("a", &["b", "c"]), check("b", &["d"]), check("c", &["d"]), check("d", &[])];
        assert_eq!(found(&diamond), Vec::<String>::new());
    }

    #[test]
    fn a_check_that_is_not_there_and_one_of_another_namespace_are_no_edges() {
        let mut other = check("b", &["a"]);
        other.key = ObjectKey::new("elsewhere", "b");
        assert_eq!(found(&[check("a", &["b"]), other]), Vec::<String>::new());
    }

    #[test]
    fn a_very_long_chain_costs_no_stack() {
        let names: Vec<String> = (0..5000).map(|i| format!("c{i}")).collect();
        let checks: Vec<Check> = names
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let next: Vec<&str> = names.get(i + 1).map(String::as_str).into_iter().collect();
                check(name, &next)
            })
            .collect();
        assert_eq!(problems(&checks).len(), 5000 - 6);
    }
}
