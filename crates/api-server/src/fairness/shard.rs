//! Shuffle sharding: which queues a flow may use. Two flows rarely share all of them, so that one that floods
//! its queues leaves others a way around.

/// The most queues of a hand.
pub const MOST: usize = 15;

/// Deals `hand` distinct cards out of a deck of `deck`; returns them and how many they are. The same hash gives
/// the same hand.
pub fn deal(mut hash: u64, deck: usize, hand: usize) -> ([usize; MOST], usize) {
    let size = hand.clamp(1, MOST).min(deck.max(1));
    let (mut drawn, mut cards) = ([0; MOST], [0; MOST]);
    for i in 0..size {
        let left = (deck.max(1) - i) as u64;
        drawn[i] = (hash % left) as usize;
        hash /= left;
        // It was drawn among the cards that were left: going back, each draw puts one in again.
        cards[i] = drawn[..i].iter().rev().fold(drawn[i], |card, d| card + usize::from(card >= *d));
    }
    (cards, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_has_distinct_cards_of_the_deck() {
        for hash in (0..2000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let (cards, size) = deal(hash, 16, 4);
            let mut seen = cards[..size].to_vec();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!((seen.len(), seen.iter().all(|c| *c < 16)), (4, true), "{hash}: {cards:?}");
        }
    }

    #[test]
    fn a_hand_is_never_larger_than_the_deck() {
        assert_eq!(deal(7, 1, 6).1, 1);
        assert_eq!(deal(7, 100, 40).1, MOST);
    }
}
