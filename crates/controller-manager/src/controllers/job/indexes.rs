//! Sets of completion indexes as the API writes them: `0-2,5`.

use std::collections::BTreeSet;

pub fn parse(text: Option<&str>) -> BTreeSet<i32> {
    let mut all = BTreeSet::new();
    for part in text.unwrap_or_default().split(',').filter(|p| !p.is_empty()) {
        match part.split_once('-') {
            Some((first, last)) => {
                if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                    all.extend(first..=last);
                }
            }
            None => all.extend(part.parse::<i32>()),
        }
    }
    all
}

pub fn format(all: &BTreeSet<i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for index in all {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let text = |(first, last): (i32, i32)| match last - first {
        0 => first.to_string(),
        // Two neighbours are written one by one.
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_written_short() {
        for text in ["", "3", "0,1", "0-2,5", "1,3-5,7"] {
            assert_eq!(format(&parse(Some(text))), text);
        }
        assert_eq!(parse(None).len(), 0);
    }
}
