//! A bar chart as SVG, by hand, and the same figures as a table.

use std::fmt::Write as _;

/// The chart has two columns of panels.
const COLUMN: usize = 440;
const GAP: usize = 30;
/// Where the bars of a column begin, and how long the longest is.
const LABELS: usize = 155;
const LONGEST: f64 = 225.0;
const HEADING: usize = 28;
const ROW: usize = 18;
const BETWEEN: usize = 14;

/// Servers beside each other.
pub(crate) struct Panel {
    pub(crate) title: String,
    unit: String,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    name: String,
    value: f64,
}

impl Panel {
    pub(crate) fn new(title: String, unit: String, bars: Vec<Bar>) -> Self {
        Self { title, unit, bars }
    }

    fn height(&self) -> usize {
        HEADING + ROW * self.bars.len() + BETWEEN
    }
}

impl Bar {
    /// `None` if the value is none to be drawn.
    pub(crate) fn new(name: String, value: f64) -> Option<Self> {
        (value.is_finite() && value >= 0.0).then_some(Self { name, value })
    }

    fn is_ours(&self) -> bool {
        self.name.starts_with("mod_websocket")
    }

    /// Its value with three digits.
    fn figure(&self) -> String {
        match self.value {
            value if value < 10.0 => format!("{value:.2}"),
            value if value < 100.0 => format!("{value:.1}"),
            value => format!("{value:.0}"),
        }
    }
}

/// The chart: each panel with a scale of its own, ours in another colour, on no background, and with colours for pages that are
/// light or dark.
pub(crate) fn svg(panels: &[&Panel], note: &str) -> String {
    let (mut drawing, mut columns) = (String::new(), [0, 0]);
    for panel in panels {
        let column = usize::from(columns[1] < columns[0]);
        let (left, top) = (column * (COLUMN + GAP), columns[column]);
        columns[column] += panel.height();
        let _ = writeln!(drawing, "<g transform=\"translate({left} {top})\">");
        let (title, unit) = (escaped(&panel.title), escaped(&panel.unit));
        let _ = writeln!(drawing, "<text class=\"title\" y=\"16\">{title} <tspan class=\"unit\">{unit}</tspan></text>");
        let highest = panel.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        for (index, bar) in panel.bars.iter().enumerate() {
            let (y, length) = (HEADING + ROW * index, (LONGEST * bar.value / highest).max(1.0));
            let class = if bar.is_ours() { "ours" } else { "peer" };
            let _ = writeln!(
                drawing,
                "<text class=\"{class}-name\" x=\"{}\" y=\"{}\">{}</text>\
                 <rect class=\"{class}\" x=\"{LABELS}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{}</text>",
                LABELS - 8,
                y + 10,
                escaped(&bar.name),
                y,
                ROW - 5,
                LABELS as f64 + length + 5.0,
                y + 10,
                bar.figure(),
            );
        }
        drawing += "</g>\n";
    }
    let (width, height) = (2 * COLUMN + GAP, columns[0].max(columns[1]) + 20);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <style>\n\
         text {{ font: 12px system-ui, sans-serif; fill: #1f2328 }}\n\
         .title {{ font-weight: bold }}\n\
         .unit {{ font-weight: normal; fill: #656d76 }}\n\
         .ours-name {{ text-anchor: end; font-weight: bold }}\n\
         .peer-name {{ text-anchor: end }}\n\
         .ours {{ fill: #1a7f64 }}\n\
         .peer {{ fill: #9aa4af }}\n\
         @media (prefers-color-scheme: dark) {{\n\
         text {{ fill: #e6edf3 }}\n\
         .unit {{ fill: #9198a1 }}\n\
         .ours {{ fill: #3fb98f }}\n\
         .peer {{ fill: #656d76 }}\n\
         }}\n\
         </style>\n\
         {drawing}<text class=\"unit\" y=\"{}\">{}</text>\n</svg>\n",
        height - 6,
        escaped(note),
    )
}

/// The figures in Markdown: a row for each panel, a column for each server.
pub(crate) fn markdown(panels: &[Panel], note: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for bar in panels.iter().flat_map(|panel| &panel.bars) {
        if !names.contains(&bar.name.as_str()) {
            names.push(&bar.name);
        }
    }
    let mut table = format!("| | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for panel in panels {
        let figure = |name: &&str| panel.bars.iter().find(|bar| bar.name == *name).map(Bar::figure).unwrap_or_default();
        let figures = names.iter().map(figure).collect::<Vec<_>>().join(" | ");
        let _ = writeln!(table, "| {}, {} | {figures} |", panel.title, panel.unit);
    }
    table + "\n" + note + "\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
