//! Bars, drawn as an SVG file that a browser shows in the README.

use crate::servers::{BY_KIND, Kind};

const WIDTH: f64 = 760.0;
/// Where the bars begin, and how long the longest is.
const LEFT: f64 = 220.0;
const LONGEST: f64 = 460.0;
const BAR_HEIGHT: f64 = 14.0;
const TOP: f64 = 64.0;

/// Some numbers, one of each kind of server. One that was not measured is not a number.
pub(crate) type Group = (String, [f64; BY_KIND]);

/// A bar of each of these kinds of server in each group, with its number as `show` writes it.
pub(crate) fn bars(
    title: &str,
    kinds: &[Kind],
    groups: &[Group],
    show: fn(f64) -> String,
) -> String {
    let of = |numbers: &[f64; BY_KIND], kind: Kind| numbers[kind as usize];
    let is_there = |kind| groups.iter().any(|(_, numbers)| of(numbers, kind).is_finite());
    let kinds: Vec<Kind> = kinds.iter().copied().filter(|&kind| is_there(kind)).collect();
    let numbers =
        groups.iter().flat_map(|(_, numbers)| kinds.iter().map(|&kind| of(numbers, kind)));
    let highest = numbers.filter(|number| number.is_finite()).fold(f64::MIN_POSITIVE, f64::max);
    let group_height = (BAR_HEIGHT + 2.0) * kinds.len() as f64 + 10.0;
    let height = TOP + group_height * groups.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#808890\">\n\
         <text x=\"10\" y=\"22\" font-size=\"15\">{title}</text>\n"
    );
    for (place, kind) in kinds.iter().enumerate() {
        let x = LEFT + 90.0 * place as f64;
        svg += &rectangle(x, 36.0, 12.0, *kind);
        svg += &format!("<text x=\"{}\" y=\"47\">{}</text>\n", x + 18.0, kind.name());
    }
    for (row, (name, numbers)) in groups.iter().enumerate() {
        let top = TOP + group_height * row as f64;
        svg += &format!("<text x=\"10\" y=\"{}\">{name}</text>\n", top + BAR_HEIGHT + 4.0);
        for (place, &kind) in kinds.iter().enumerate() {
            let number = of(numbers, kind);
            if number.is_finite() {
                let y = top + (BAR_HEIGHT + 2.0) * place as f64;
                let length = number / highest * LONGEST;
                svg += &rectangle(LEFT, y, length, kind);
                let (x, y) = (LEFT + length + 6.0, y + BAR_HEIGHT - 2.0);
                svg += &format!("<text x=\"{x:.1}\" y=\"{y}\">{}</text>\n", show(number));
            }
        }
    }
    svg + "</svg>\n"
}

fn rectangle(x: f64, y: f64, width: f64, kind: Kind) -> String {
    let colour = kind.colour();
    format!(
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\" \
         fill=\"{colour}\"/>\n"
    )
}
