//! The figures as OpenMetrics text, which Prometheus reads.

use crate::engine::metrics::families::{FAMILIES, Figures, Kind, Value};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::ffi::CStr;
use std::fmt;

pub(super) const CONTENT_TYPE: &CStr = c"application/openmetrics-text; version=1.0.0; charset=utf-8";

/// # Errors
/// One of the encoder, which writes into memory.
pub(super) fn text(figures: Figures) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(figures)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Page(Figures);

/// The labels of a sample: their names, and their values.
struct Labels<'a>(&'a [&'static str], &'a [String]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.iter().zip(self.1).try_for_each(|(name, value)| (*name, value.as_str()).encode(encoder.encode_label()))
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in FAMILIES {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (values, value) in (family.samples)(&self.0) {
                let labels = Labels(family.labels, &values);
                let mut sample = metric.encode_family(&labels)?;
                match value {
                    Value::Counter(count) => sample.encode_counter::<NoLabelSet, _, u64>(&count, None)?,
                    Value::Gauge(level) => sample.encode_gauge(&level)?,
                    Value::Histogram(times) => {
                        sample.encode_histogram::<NoLabelSet>(times.sum, times.count(), &times.buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}
