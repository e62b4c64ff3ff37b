//! What a receiver owes for the messages of one sender, to the message.

use crate::world::FINALS;

/// What one node tried to send: its messages are numbered from 1.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    pub(crate) tried: u64,
    /// The emit succeeded.
    pub(crate) accepted: Vec<u64>,
    /// The emit failed, and its error says that nothing was sent. Any other error, or none because the node is gone, leaves
    /// a message in doubt: it may arrive.
    pub(crate) refused: Vec<u64>,
}

/// What one node has of the messages of another.
#[derive(Debug)]
pub(crate) struct Heard<'a> {
    pub(crate) received: &'a [u64],
    /// Whether it is its own.
    pub(crate) own: bool,
    /// The last message before it had joined: all later ones are owed.
    pub(crate) owed_since: u64,
    /// The last message before it began to join: no earlier one may be reported lost.
    pub(crate) reported_since: u64,
    /// How many were reported lost.
    pub(crate) gaps: u64,
}

/// Judges `heard` by `sent`. `unsent` is how many accepted messages the sender has told as not sent after all, or `None` if
/// the sender is gone: then the end of what it sent may be lost without anybody who could know.
pub(crate) fn judge_pair(
    sent: &Sent,
    heard: &Heard<'_>,
    unsent: Option<u64>,
) -> Result<(), String> {
    let received = heard.received;
    if let Some(pair) = received.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(format!("{} came after {}", pair[1], pair[0]));
    }
    if heard.own {
        let all = received.iter().copied().eq(1..=sent.tried);
        return all.then_some(()).ok_or_else(|| {
            format!(
                "a socket of its own has {received:?} of {} messages",
                sent.tried
            )
        });
    }
    if let Some(extra) = received.iter().find(|id| **id > sent.tried) {
        return Err(format!("{extra} arrived and was never sent"));
    }
    let has = |ids: &[u64], id: u64| ids.binary_search(&id).is_ok();
    if let Some(extra) = received.iter().find(|id| has(&sent.refused, **id)) {
        return Err(format!("{extra} arrived although its emit was refused"));
    }
    let Some(unsent) = unsent else {
        return Ok(());
    };
    let finals = sent.tried - FINALS + 1..=sent.tried;
    if !finals
        .clone()
        .all(|id| has(&sent.accepted, id) && has(received, id))
    {
        return Err(format!(
            "the last ones, {finals:?}, did not arrive: {received:?}"
        ));
    }
    let missing = |since: u64| (since + 1..=sent.tried).filter(|id| !has(received, *id));
    let owed = missing(heard.owed_since).filter(|id| has(&sent.accepted, *id));
    let at_least = owed.count() as u64;
    let possible = missing(heard.reported_since).filter(|id| !has(&sent.refused, *id));
    let at_most = possible.count() as u64;
    let gaps = heard.gaps;
    if gaps + unsent < at_least || gaps > at_most {
        return Err(format!(
            "{at_least} to {at_most} are missing, {gaps} were reported lost, {unsent} unsent"
        ));
    }
    Ok(())
}

/// Of 20 messages, 3 was refused, 5 is in doubt, 7 and 8 were lost and reported.
fn judge(change: impl FnOnce(&mut Sent, &mut Vec<u64>, &mut u64)) -> Result<(), String> {
    let mut sent = Sent {
        tried: 20,
        accepted: (1..=20).filter(|id| ![3, 5].contains(id)).collect(),
        refused: vec![3],
    };
    let mut received = (1..=20).filter(|id| ![3, 5, 7, 8].contains(id)).collect();
    let mut gaps = 2;
    change(&mut sent, &mut received, &mut gaps);
    let heard = Heard {
        received: &received,
        own: false,
        owed_since: 0,
        reported_since: 0,
        gaps,
    };
    judge_pair(&sent, &heard, Some(0))
}

#[test]
fn the_judge_takes_what_is_right() {
    assert_eq!(judge(|_, _, _| {}), Ok(()));
    // The one in doubt may arrive, or be lost and reported.
    assert_eq!(judge(|_, received, _| received.insert(3, 5)), Ok(()));
    assert_eq!(judge(|_, _, gaps| *gaps = 3), Ok(()));
}

#[test]
fn the_judge_sees_every_kind_of_violation() {
    let says = |what: &str, verdict: Result<(), String>| {
        let said = verdict.unwrap_err();
        assert!(said.contains(what), "{said}");
    };
    says("2 to 3 are missing, 1 were", judge(|_, _, gaps| *gaps = 1));
    says("2 to 3 are missing, 4 were", judge(|_, _, gaps| *gaps = 4));
    says(
        "4 came after 4",
        judge(|_, received, _| received.insert(2, 4)),
    );
    says(
        "4 came after 6",
        judge(|_, received, _| received.swap(2, 3)),
    );
    says(
        "3 arrived although",
        judge(|_, received, _| received.insert(2, 3)),
    );
    says("21 arrived", judge(|_, received, _| received.push(21)));
    says(
        "16..=20, did not",
        judge(|_, received, _| received.truncate(15)),
    );
    says(
        "16..=20, did not",
        judge(|sent, _, _| sent.accepted.truncate(17)),
    );
}
