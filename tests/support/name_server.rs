//! What a name server of a test's own answers.

use std::net::IpAddr;

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType},
};

/// What it says to one question; `None`: nothing at all.
pub type Zone = fn(&str, RecordType) -> Option<Result<Vec<IpAddr>, ResponseCode>>;

/// What it sends back to whoever sent `question`.
pub fn answer(question: &[u8], zone: Zone) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).expect("a question");
    let query = question.queries.first().expect("a query").clone();
    let name = query.name().to_string();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    match zone(&name, query.query_type())? {
        Ok(addresses) => {
            let record = |ip: IpAddr| {
                let data = match ip {
                    IpAddr::V4(ip) => RData::A(ip.into()),
                    IpAddr::V6(ip) => RData::AAAA(ip.into()),
                };
                Record::from_rdata(query.name().clone(), time_to_live(&name), data)
            };
            answer.answers.extend(addresses.into_iter().map(record));
        }
        Err(code) => answer.metadata.response_code = code,
    }
    answer.queries.push(query);
    Some(answer.to_vec().expect("an answer"))
}

/// `ttl-7.example` is good for seven seconds, and any other name for a minute.
fn time_to_live(name: &str) -> u32 {
    let label = name.split('.').next().and_then(|label| label.strip_prefix("ttl-"));
    label.map_or(60, |seconds| seconds.parse().expect("seconds"))
}
