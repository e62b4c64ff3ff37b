//! Results as drawings.

use std::{error::Error, path::Path};

use plotters::prelude::*;

use crate::{
    node::Result,
    results::Results,
    table::{distinct, number},
};

/// One drawing: a line for each subject, over cases.
struct Plot<'a> {
    file: &'a str,
    title: &'a str,
    scenario: &'a str,
    /// Metric and case of each place on the axis, and what is written there.
    places: Vec<(&'a str, String, String)>,
}

/// Draws everything that `results` has numbers for.
pub(crate) fn all(results: &Results, folder: &Path) -> Result<()> {
    let throughput = |size: &str| {
        let place = |count| ("messages/s", format!("{size}, {count}"), format!("{count}"));
        [1, 8, 64].map(place).to_vec()
    };
    let latency = ["p50", "p99", "p99.9"].map(|quantile| {
        let metric = match quantile {
            "p50" => "p50, µs",
            "p99" => "p99, µs",
            _ => "p99.9, µs",
        };
        (metric, "1 KiB, 2000/s".to_owned(), quantile.to_owned())
    });
    let scaling = [2, 4, 8, 16].map(|nodes| {
        let case = format!("{nodes} nodes, 1 namespaces");
        ("broker at rest, CPU ms/s", case, nodes.to_string())
    });
    let requests = [2, 4, 8].map(|nodes| {
        let case = format!("fetch_sockets, {nodes} nodes");
        ("16 at a time: requests/s", case, nodes.to_string())
    });
    let plots = [
        Plot {
            file: "throughput-64b.svg",
            title: "Broadcasts of 64 B a second at another node, by publishers",
            scenario: "throughput",
            places: throughput("64 B"),
        },
        Plot {
            file: "throughput-1kib.svg",
            title: "Broadcasts of 1 KiB a second at another node, by publishers",
            scenario: "throughput",
            places: throughput("1 KiB"),
        },
        Plot {
            file: "latency.svg",
            title: "One-way latency in µs, 1 KiB at 2,000 a second",
            scenario: "latency",
            places: latency.to_vec(),
        },
        Plot {
            file: "requests.svg",
            title: "fetch_sockets a second, 16 at a time, by nodes",
            scenario: "requests",
            places: requests.to_vec(),
        },
        Plot {
            file: "scaling.svg",
            title: "Processor time of an idle cluster's broker in ms/s, by nodes",
            scenario: "scaling",
            places: scaling.to_vec(),
        },
    ];
    for plot in plots {
        draw(&plot, results, folder).map_err(|error| format!("{}: {error}", plot.file))?;
    }
    Ok(())
}

fn draw(plot: &Plot<'_>, results: &Results, folder: &Path) -> Result<(), Box<dyn Error>> {
    let rows = results.rows().iter();
    let subjects = distinct(
        rows.filter(|row| row.key.scenario == plot.scenario)
            .map(|row| &*row.key.subject),
    );
    let mut lines = Vec::new();
    for subject in subjects {
        let values = plot.places.iter().enumerate().filter_map(|(at, place)| {
            let row = results.row(plot.scenario, place.0, &place.1, subject)?;
            Some((at as i32, row.median()))
        });
        let values: Vec<(i32, f64)> = values.filter(|(_, value)| *value > 0.0).collect();
        if !values.is_empty() {
            lines.push((subject, values));
        }
    }
    let all = || {
        lines
            .iter()
            .flat_map(|(_, values)| values)
            .map(|(_, value)| *value)
    };
    let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    if lines.is_empty() {
        return Ok(());
    }
    let path = folder.join(plot.file);
    let root = SVGBackend::new(&path, (900, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let (area, legend) = root.split_horizontally(690);
    let last = plot.places.len() as i32 - 1;
    let mut chart = ChartBuilder::on(&area)
        .caption(plot.title, ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(34)
        .y_label_area_size(64)
        .build_cartesian_2d(0..last, (low * 0.7..high * 1.4).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(plot.places.len())
        .x_label_formatter(&|at| {
            let place = usize::try_from(*at).ok().and_then(|at| plot.places.get(at));
            place.map_or_else(String::new, |place| place.2.clone())
        })
        .y_label_formatter(&|value| number(*value))
        .light_line_style(WHITE)
        .draw()?;
    for (index, (subject, values)) in lines.iter().enumerate() {
        let style = Palette99::pick(index).to_rgba().stroke_width(2);
        chart.draw_series(LineSeries::new(values.clone(), style).point_size(4))?;
        let y = 60 + 24 * index as i32;
        legend.draw(&PathElement::new([(8, y), (30, y)], style))?;
        let name = (*subject).to_owned();
        legend.draw(&Text::new(name, (38, y - 7), ("sans-serif", 14)))?;
    }
    root.present()?;
    Ok(())
}
