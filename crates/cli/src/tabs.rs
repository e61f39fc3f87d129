//! Aligns tab-separated cells: a column is as wide as its widest cell over consecutive lines that have it, the way
//! Go's `text/tabwriter` does it.

use unicode_width::UnicodeWidthStr;

/// How cells are padded with spaces.
#[derive(Clone, Copy, Debug)]
pub struct Tabs {
    pub min_width: usize,
    pub padding: usize,
}

/// As `get` prints.
pub const TABLE: Tabs = Tabs { min_width: 6, padding: 3 };
/// As `describe` prints.
pub const DESCRIBE: Tabs = Tabs { min_width: 0, padding: 2 };

impl Tabs {
    /// Aligns whole lines of text.
    pub fn align(self, text: &str) -> String {
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
        let mut widths = vec![Vec::new(); lines.len()];
        self.measure(&lines, 0, lines.len(), 0, &mut widths);
        let mut out = String::with_capacity(text.len() * 2);
        for (cells, widths) in lines.iter().zip(&widths) {
            for (index, cell) in cells.iter().enumerate() {
                out.push_str(cell);
                if let Some(width) = widths.get(index).filter(|_| index + 1 < cells.len()) {
                    let gap = usize::saturating_sub(*width, cell.width());
                    out.extend(std::iter::repeat_n(' ', gap));
                }
            }
            out.push('\n');
        }
        out
    }

    /// Finds the blocks of lines that have the column, and within each the next column's.
    fn measure(self, lines: &[Vec<&str>], from: usize, to: usize, column: usize, widths: &mut [Vec<usize>]) {
        let mut start = from;
        while start < to {
            // The last cell of a line belongs to no column.
            if lines[start].len() <= column + 1 {
                start += 1;
                continue;
            }
            let end = (start..to).find(|&i| lines[i].len() <= column + 1).unwrap_or(to);
            let widest = lines[start..end].iter().map(|cells| cells[column].width() + self.padding).max();
            let width = widest.unwrap_or_default().max(self.min_width);
            widths[start..end].iter_mut().for_each(|w| w.push(width));
            self.measure(lines, start, end, column + 1, widths);
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_within_their_block() {
        assert_eq!(
            TABLE.align("NAME\tREADY\tAGE\nlonger-name\t1/1\t5s\n"),
            "NAME          READY   AGE\nlonger-name   1/1     5s\n"
        );
        assert_eq!(
            DESCRIBE.align("Name:\tx\nLong title:\ty\nBlock:\n  a\tb\n"),
            "Name:        x\nLong title:  y\nBlock:\n  a  b\n"
        );
    }
}
