//! What the benchmarks print and write.

use std::path::Path;

use serde_json::Value;

use super::Result;

/// The lower middle of an even number of values; nothing of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// The ratios `ours` ÷ `peer` of the rounds, lowest first.
pub(crate) fn ratios(ours: impl IntoIterator<Item = f64>, peer: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut ratios: Vec<f64> = ours.into_iter().zip(peer).map(|(ours, peer)| ours / peer).collect();
    ratios.sort_by(f64::total_cmp);
    ratios
}

/// The median of sorted ratios, the lowest and the highest, as the last column of a table.
pub(crate) fn ratio_column(ratios: &[f64]) -> String {
    match (median(ratios.iter().copied()), ratios.first(), ratios.last()) {
        (Some(ratio), Some(lowest), Some(highest)) => format!("{ratio:>8.2}  ({lowest:.2}-{highest:.2})"),
        _ => format!("{:>8}", "-"),
    }
}

/// Writes a report, and says so.
pub(crate) fn write(file: &Path, report: &Value) -> Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(file, serde_json::to_string_pretty(report)? + "\n")?;
    eprintln!("written: {}", file.display());
    Ok(())
}
