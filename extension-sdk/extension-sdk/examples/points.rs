//! An extension whose methods take the fast codec: `cargo build -p extension-sdk --features fast --example points`.
use std::collections::BTreeMap;

use extension_sdk::{Blob, Fault, FaultCode};

/// A place in the plane.
#[extension_sdk::message(fast)]
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Upwards.
    pub y: f64,
    /// What it is called.
    pub name: Option<String>,
}

/// What holds many points.
#[extension_sdk::message(fast)]
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// None at all.
    Nothing,
    /// All that are as far from the middle.
    Circle(Point, f64),
    /// What lies between these.
    Polygon {
        /// In order.
        corners: Vec<Point>,
        /// Whether the inside belongs to it.
        filled: bool,
    },
}

/// Plane geometry.
#[extension_sdk::interface]
pub trait Points {
    /// The point in the middle.
    #[method(fast, idempotent)]
    fn middle(&self, points: Vec<Point>) -> Result<Point, Fault>;

    /// The same shapes, by name.
    #[method(fast, idempotent)]
    fn name(&self, shapes: Vec<Shape>, names: Vec<String>) -> Result<BTreeMap<String, Shape>, Fault>;

    /// The same bytes.
    #[method(fast, idempotent)]
    fn turn(&self, request: Blob) -> Result<Blob, Fault>;

    /// Takes nothing and gives nothing.
    #[method(fast)]
    fn rest(&self) -> Result<(), Fault>;

    /// As long as its name, in MessagePack always.
    fn length(&self, point: Point) -> Result<usize, Fault>;
}

#[derive(Default)]
struct Plane;

impl Points for Plane {
    fn middle(&self, points: Vec<Point>) -> Result<Point, Fault> {
        let count = u32::try_from(points.len()).ok().filter(|&count| count > 0);
        let count = count.ok_or_else(|| Fault::new(FaultCode::InvalidArgument, "there are no points"))?;
        let mean = |of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / f64::from(count);
        Ok(Point { x: mean(|point| point.x), y: mean(|point| point.y), name: None })
    }

    fn name(&self, shapes: Vec<Shape>, names: Vec<String>) -> Result<BTreeMap<String, Shape>, Fault> {
        Ok(names.into_iter().zip(shapes).collect())
    }

    fn turn(&self, request: Blob) -> Result<Blob, Fault> {
        Ok(request)
    }

    fn rest(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn length(&self, point: Point) -> Result<usize, Fault> {
        Ok(point.name.map_or(0, |name| name.len()))
    }
}

extension_sdk::export!(Plane as Points);
