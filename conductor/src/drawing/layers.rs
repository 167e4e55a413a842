//! Where the boxes of a layered drawing go: each step below all that it waits for, edges around the boxes
//! between.
//!
//! ```text
//! layers by the longest way --> order in a layer by the means of neighbours --> places that keep that order
//! ```
//!
//! An edge over several layers has a bend in each layer between, which takes room like a thin box. Pure and
//! deterministic; this file must not know what is written in a box.

/// Room between the boxes of a layer, in the drawing's units.
const GAP: f64 = 28.0;
/// Room between layers.
const LAYER_GAP: f64 = 46.0;
/// How wide a bend is.
const BEND_WIDTH: f64 = 10.0;
/// LIMIT: bends of one drawing; edges beyond go straight.
const BENDS_MAX: usize = 20_000;
/// How often neighbours pull at each other's order and place.
const SWEEPS: usize = 8;

/// A point: from the left, from the top.
pub(super) type Point = (f64, f64);

/// A box to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A drawing.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Of each box the middle of its upper side.
    pub(super) boxes: Vec<Point>,
    /// Of each edge the points that it goes through, its ends included.
    pub(super) routes: Vec<Vec<Point>>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Something that takes room in a layer.
#[derive(Clone, Debug, Default)]
struct Slot {
    width: f64,
    /// The middle.
    x: f64,
    /// Neighbours in the layer above and in the layer below.
    above: Vec<usize>,
    below: Vec<usize>,
}

/// Places boxes that are connected by `edges`, given in an order in which no edge leads backwards.
pub(super) fn layout(sizes: &[Size], edges: &[(usize, usize)], order: &[usize]) -> Layout {
    let mut waits_for = vec![Vec::new(); sizes.len()];
    edges.iter().for_each(|(from, to)| waits_for[*to].push(*from));
    let mut layer_of = vec![0_usize; sizes.len()];
    for step in order {
        let above = waits_for[*step].iter().map(|from: &usize| layer_of[*from] + 1);
        layer_of[*step] = above.max().unwrap_or(0);
    }
    let mut slots: Vec<Slot> =
        sizes.iter().map(|size| Slot { width: size.width, ..Slot::default() }).collect();
    let mut layers = vec![Vec::new(); layer_of.iter().max().map_or(0, |last| last + 1)];
    order.iter().for_each(|step| layers[layer_of[*step]].push(*step));
    let mut bends_left = BENDS_MAX;
    let mut bends = Vec::with_capacity(edges.len());
    for (from, to) in edges {
        let between = layer_of[*from] + 1..layer_of[*to];
        let mut of_edge = Vec::new();
        if between.len() <= bends_left {
            bends_left -= between.len();
            for layer in between {
                of_edge.push(slots.len());
                layers[layer].push(slots.len());
                slots.push(Slot { width: BEND_WIDTH, ..Slot::default() });
            }
        }
        let way: Vec<usize> = [*from].into_iter().chain(of_edge.iter().copied()).chain([*to]).collect();
        for pair in way.windows(2) {
            slots[pair[0]].below.push(pair[1]);
            slots[pair[1]].above.push(pair[0]);
        }
        bends.push(of_edge);
    }
    sort_layers(&mut layers, &slots);
    place(&layers, &mut slots);

    // Of each layer its upper and its lower side.
    let mut sides = Vec::with_capacity(layers.len());
    let mut height = 0.0;
    for layer in &layers {
        let heights = layer.iter().filter_map(|slot| sizes.get(*slot)).map(|size| size.height);
        let below = height + heights.fold(0.0, f64::max);
        sides.push((height, below));
        height = below + LAYER_GAP;
    }
    let left = slots.iter().map(|slot| slot.x - slot.width / 2.0).fold(f64::INFINITY, f64::min);
    let right = slots.iter().map(|slot| slot.x + slot.width / 2.0).fold(f64::NEG_INFINITY, f64::max);
    let boxes: Vec<Point> =
        (0..sizes.len()).map(|step| (slots[step].x - left, sides[layer_of[step]].0)).collect();
    let routes = edges.iter().zip(&bends).map(|((from, to), bends)| {
        let start = (boxes[*from].0, boxes[*from].1 + sizes[*from].height);
        // Straight down through a layer, so that what bends does so between the boxes of one and of the next.
        let bends = bends.iter().enumerate().flat_map(|(index, bend)| {
            let (above, below) = sides[layer_of[*from] + 1 + index];
            [above, below].map(|y| (slots[*bend].x - left, y))
        });
        [start].into_iter().chain(bends).chain([boxes[*to]]).collect()
    });
    let routes = routes.collect();
    Layout { boxes, routes, width: (right - left).max(0.0), height: (height - LAYER_GAP).max(0.0) }
}

/// Brings neighbours of different layers near each other, which is what keeps edges from crossing.
fn sort_layers(layers: &mut [Vec<usize>], slots: &[Slot]) {
    let mut position = vec![0.0; slots.len()];
    layers.iter().for_each(|layer| number(layer, &mut position));
    for sweep in 0..SWEEPS {
        let downwards = sweep % 2 == 0;
        for step in 0..layers.len() {
            let layer = if downwards { step } else { layers.len() - 1 - step };
            let neighbours = |slot: usize| if downwards { &slots[slot].above } else { &slots[slot].below };
            // One without neighbours there stays where it is.
            layers[layer].sort_by_cached_key(|slot| {
                let pull = mean(neighbours(*slot).iter().map(|other| position[*other]));
                Ordered(pull.unwrap_or(position[*slot]))
            });
            number(&layers[layer], &mut position);
        }
    }
}

fn number(layer: &[usize], position: &mut [f64]) {
    for (index, slot) in layer.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "positions are far below 2^52")]
        let index = index as f64;
        position[*slot] = index;
    }
}

/// A number that can be a key; none of them is NaN.
#[derive(PartialEq)]
struct Ordered(f64);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Places every layer: as near as may be to the neighbours, in the order that was found, without overlaps.
fn place(layers: &[Vec<usize>], slots: &mut [Slot]) {
    for layer in layers {
        spread(layer, slots, |_, _| Some(0.0));
    }
    for sweep in 0..SWEEPS {
        let downwards = sweep % 2 == 0;
        for step in 0..layers.len() {
            let layer = &layers[if downwards { step } else { layers.len() - 1 - step }];
            spread(layer, slots, |slot, slots| {
                let neighbours = if downwards { &slot.above } else { &slot.below };
                mean(neighbours.iter().map(|other| slots[*other].x))
            });
        }
    }
}

/// Moves the slots of a layer to where `wish` wants them, as far as their order and widths allow: the least sum
/// of squares (pool adjacent violators).
fn spread(layer: &[usize], slots: &mut [Slot], wish: impl Fn(&Slot, &[Slot]) -> Option<f64>) {
    /// Neighbours that touch, moved together.
    struct Pool {
        sum: f64,
        count: f64,
        members: usize,
    }
    let mut offsets = Vec::with_capacity(layer.len());
    let mut offset = 0.0;
    let mut before: Option<f64> = None;
    let mut pools: Vec<Pool> = Vec::new();
    for slot in layer {
        let width = slots[*slot].width;
        offset += before.map_or(0.0, |before| f64::midpoint(before, width) + GAP);
        before = Some(width);
        offsets.push(offset);
        let wished = wish(&slots[*slot], slots).unwrap_or(slots[*slot].x) - offset;
        pools.push(Pool { sum: wished, count: 1.0, members: 1 });
        while let [.., one, other] = &pools[..]
            && one.sum / one.count > other.sum / other.count
        {
            let merged = Pool {
                sum: one.sum + other.sum,
                count: one.count + other.count,
                members: one.members + other.members,
            };
            pools.truncate(pools.len() - 2);
            pools.push(merged);
        }
    }
    let places = pools.iter().flat_map(|pool| std::iter::repeat_n(pool.sum / pool.count, pool.members));
    for ((slot, place), offset) in layer.iter().zip(places).zip(offsets) {
        slots[*slot].x = place + offset;
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^52")]
    let count = values.len() as f64;
    (values.len() > 0).then(|| values.sum::<f64>() / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { width: 100.0, height: 40.0 };

    #[test]
    fn boxes_stand_below_what_they_wait_for_and_never_overlap() {
        // A diamond with an edge across, and one beside it.
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (3, 4), (5, 4)];
        let drawn = layout(&[SIZE; 6], &edges, &[0, 1, 2, 3, 5, 4]);
        for (from, to) in edges {
            assert!(drawn.boxes[from].1 + SIZE.height < drawn.boxes[to].1, "{from} {to} {drawn:?}");
        }
        for one in 0..6 {
            for other in 0..one {
                let (a, b) = (drawn.boxes[one], drawn.boxes[other]);
                let apart = (a.0 - b.0).abs() >= SIZE.width || (a.1 - b.1).abs() >= SIZE.height;
                assert!(apart, "{one} and {other} overlap: {drawn:?}");
                assert!(a.0 >= SIZE.width / 2.0 - 0.01 && a.0 <= drawn.width - SIZE.width / 2.0 + 0.01);
            }
        }
        assert_eq!(drawn.routes[4].len(), 4, "the long edge has a bend");
        assert_eq!(drawn.routes[0].len(), 2);
    }

    #[test]
    fn an_edge_over_a_layer_goes_around_the_boxes_in_it() {
        let drawn = layout(&[SIZE; 3], &[(0, 1), (1, 2), (0, 2)], &[0, 1, 2]);
        let [_, above, below, _] = drawn.routes[2][..] else { panic!("{drawn:?}") };
        assert_eq!((above.1, below.1), (drawn.boxes[1].1, drawn.boxes[1].1 + SIZE.height));
        assert_eq!(above.0, below.0, "straight down beside it");
        assert!((above.0 - drawn.boxes[1].0).abs() >= SIZE.width / 2.0, "{drawn:?}");
    }

    #[test]
    fn nothing_is_drawn_of_nothing_and_a_chain_is_straight() {
        let drawn = layout(&[], &[], &[]);
        assert!(drawn.boxes.is_empty() && drawn.height == 0.0 && drawn.width == 0.0);
        let drawn = layout(&[SIZE; 3], &[(0, 1), (1, 2)], &[0, 1, 2]);
        assert!(drawn.boxes.iter().all(|place| (place.0 - 50.0).abs() < 0.01), "{drawn:?}");
    }
}
