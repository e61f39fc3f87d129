//! `/debug/api_priority_and_fairness/dump_*`: levels, queues and requests as they are, in upstream's columns.

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::Fairness;
use super::level::Tag;
use super::queue::Request;
use crate::body::Response;
use crate::request::Query;
use crate::response;

const PREFIX: &str = "/debug/api_priority_and_fairness/";

/// Answers a dump's path; `None` for others.
pub fn serve(fairness: &Fairness, path: &str, query: &Query) -> Option<Response> {
    let text = match path.strip_prefix(PREFIX)? {
        "dump_priority_levels" => levels(fairness),
        "dump_queues" => queues(fairness),
        "dump_requests" => {
            requests(fairness, query.get("includeRequestDetails").is_some_and(|v| !v.is_empty()))
        }
        _ => return None,
    };
    Some(response::text(StatusCode::OK, "text/plain; charset=utf-8", text.into_bytes()))
}

fn row<S: AsRef<str>>(out: &mut String, cells: &[S]) {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    let _ = writeln!(out, "{}", cells.join(", "));
}

fn levels(fairness: &Fairness) -> String {
    let mut out = String::new();
    let head = "PriorityLevelName ActiveQueues IsIdle IsQuiescing WaitingRequests ExecutingRequests DispatchedRequests RejectedRequests TimedoutRequests CancelledRequests";
    row(&mut out, &head.split(' ').collect::<Vec<_>>());
    for level in &fairness.table.load().levels {
        let set = level.set.lock();
        let (idle, quiescing) = (set.is_idle(), level.quiescing.load(Ordering::Relaxed));
        let numbers = [set.waiting() as u64, set.executing() as u64];
        let totals = set.totals;
        let totals = [totals.dispatched, totals.rejected, totals.timed_out, totals.cancelled];
        let mut cells = vec![
            level.name.to_string(),
            set.active_queues().to_string(),
            idle.to_string(),
            quiescing.to_string(),
        ];
        cells.extend(numbers.iter().chain(&totals).map(u64::to_string));
        row(&mut out, &cells);
    }
    out
}

fn queues(fairness: &Fairness) -> String {
    let mut out = String::new();
    let head = "PriorityLevelName Index PendingRequests ExecutingRequests SeatsInUse NextDispatchR InitialSeatsSum MaxSeatsSum TotalWorkSum";
    row(&mut out, &head.split(' ').collect::<Vec<_>>());
    for level in &fairness.table.load().levels {
        let set = level.set.lock();
        for (i, queue) in set.queues().enumerate() {
            let initial: u32 =
                queue.waiting.iter().filter_map(|key| set.request(*key)).map(|r| r.estimate.seats).sum();
            let cells = [
                level.name.to_string(),
                i.to_string(),
                queue.waiting.len().to_string(),
                queue.executing.to_string(),
                queue.seats.to_string(),
                format!("{:.8}ss", queue.next_r),
                initial.to_string(),
                queue.waiting_seats.to_string(),
                format!("{:.8}ss", queue.waiting_work),
            ];
            row(&mut out, &cells);
        }
    }
    out
}

fn requests(fairness: &Fairness, details: bool) -> String {
    let mut out = String::new();
    let head = "PriorityLevelName FlowSchemaName QueueIndex RequestIndexInQueue FlowDistingsher ArriveTime InitialSeats FinalSeats AdditionalLatency StartTime";
    let more = "UserName Verb APIPath Namespace Name APIVersion Resource SubResource";
    let mut columns: Vec<&str> = head.split(' ').collect();
    if details {
        columns.extend(more.split(' '));
    }
    row(&mut out, &columns);
    let now = (Timestamp::now(), fairness.now());
    for level in &fairness.table.load().levels {
        let set = level.set.lock();
        for (key, request) in set.requests() {
            let queue = request.queue.and_then(|index| set.queues().nth(index));
            let place = queue.and_then(|q| q.waiting.iter().position(|k| *k == key));
            let mut cells = vec![level.name.to_string()];
            cells.extend(cells_of(request, place, now));
            if details {
                cells.extend(details_of(&request.tag));
            }
            row(&mut out, &cells);
        }
    }
    out
}

fn cells_of<W>(
    request: &Request<Tag, W>,
    place: Option<usize>,
    (wall, now): (Timestamp, Duration),
) -> Vec<String> {
    let index = |i: Option<usize>| i.map_or("-1".to_owned(), |i| i.to_string());
    let at = |time: Duration| {
        let ago = SignedDuration::try_from(now.saturating_sub(time)).unwrap_or_default();
        wall.checked_sub(ago).unwrap_or(wall).to_string()
    };
    vec![
        request.tag.schema.name.to_string(),
        index(request.queue),
        index(place),
        request.tag.flow.as_deref().unwrap_or_default().to_owned(),
        at(request.arrived),
        request.estimate.seats.to_string(),
        request.estimate.final_seats.to_string(),
        format!("{:?}", request.estimate.lingering),
        request.started.map_or("0001-01-01T00:00:00Z".to_owned(), at),
    ]
}

/// Of requests that have had to wait; the others have passed too quickly to be written down.
fn details_of(tag: &Tag) -> Vec<String> {
    let Some(details) = &tag.details else { return vec![String::new(); 8] };
    let info = &details.info;
    let version =
        if info.group.is_empty() { info.version.clone() } else { format!("{}/{}", info.group, info.version) };
    let fields = [
        &details.user,
        &info.verb,
        &info.path,
        &info.namespace,
        &info.name,
        &version,
        &info.resource,
        &info.subresource,
    ];
    fields.map(String::clone).into()
}
