//! Bars, drawn as an SVG file that a browser shows in the README.

const WIDTH: f64 = 760.0;
/// Where the bars begin, and how long the longest is.
const LEFT: f64 = 220.0;
const LONGEST: f64 = 470.0;
const BAR_HEIGHT: f64 = 14.0;
const GROUP_HEIGHT: f64 = 42.0;
const TOP: f64 = 64.0;
/// Of Respite and of Redis; both can be read on white and on black.
const COLOURS: [&str; 2] = ["#2a9d8f", "#b0b4ba"];

/// For each name two bars, Respite's and Redis's. A number that was not measured has none.
pub(crate) fn bars(title: &str, groups: &[(&str, [f64; 2])]) -> String {
    let numbers = groups.iter().flat_map(|(_, pair)| *pair);
    let highest = numbers.filter(|number| number.is_finite()).fold(1.0, f64::max);
    let height = TOP + GROUP_HEIGHT * groups.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#808890\">\n\
         <text x=\"10\" y=\"22\" font-size=\"15\">{title}</text>\n"
    );
    for (place, name) in ["Respite", "Redis"].into_iter().enumerate() {
        let x = LEFT + 90.0 * place as f64;
        svg += &rectangle(x, 36.0, 12.0, COLOURS[place]);
        svg += &format!("<text x=\"{}\" y=\"47\">{name}</text>\n", x + 18.0);
    }
    for (row, (name, pair)) in groups.iter().enumerate() {
        let y = TOP + GROUP_HEIGHT * row as f64;
        svg += &format!("<text x=\"10\" y=\"{}\">{name}</text>\n", y + BAR_HEIGHT + 4.0);
        for (place, number) in pair.iter().enumerate().filter(|(_, number)| number.is_finite()) {
            let (y, length) = (y + (BAR_HEIGHT + 2.0) * place as f64, number / highest * LONGEST);
            svg += &rectangle(LEFT, y, length, COLOURS[place]);
            let (x, y) = (LEFT + length + 6.0, y + BAR_HEIGHT - 2.0);
            svg += &format!("<text x=\"{x:.1}\" y=\"{y}\">{number:.0}</text>\n");
        }
    }
    svg + "</svg>\n"
}

fn rectangle(x: f64, y: f64, width: f64, colour: &str) -> String {
    format!(
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\" \
         fill=\"{colour}\"/>\n"
    )
}
