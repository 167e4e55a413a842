//! Frames: whatever the bytes, and however they are cut into reads, the decoder says what a slow one says.
//!
//! ```text
//! limit, which are wanted, how it is cut (8 bytes), form | raw bytes, or one step for each frame
//! ```

use ipc_protocol::limits::{CONTROL_BYTES_MAX, FRAME_BODY_BYTES_MAX};
use ipc_protocol::{Header, Kind};
use ipc_transport::framing::{FrameBuffer, READ_BUFFER_BYTES};

use super::input::Input;
use super::slow_frames::{HEADER, Heard, UNASKED_BODY_BYTES_MAX, hear};

/// LIMIT: bytes after which an input makes no more frames.
const WIRE_BYTES_MAX: usize = 2 << 20;

/// LIMIT: reads that are cut as the input says; what is left then comes as it fits.
const CUT_READS_MAX: usize = 2000;

/// What all half-received messages may have together.
const MESSAGE_BYTES_MAX: [u64; 6] = [0, 100, 40_000, 1 << 20, 3 << 20, u64::MAX];

/// Lengths of bodies on both sides of each bound.
const LENGTHS: [usize; 14] = [
    0,
    1,
    300,
    UNASKED_BODY_BYTES_MAX - 1,
    UNASKED_BODY_BYTES_MAX,
    UNASKED_BODY_BYTES_MAX + 1,
    READ_BUFFER_BYTES - HEADER,
    READ_BUFFER_BYTES - HEADER + 1,
    READ_BUFFER_BYTES + 1,
    100_000,
    CONTROL_BYTES_MAX as usize,
    CONTROL_BYTES_MAX as usize + 1,
    FRAME_BODY_BYTES_MAX as usize,
    FRAME_BODY_BYTES_MAX as usize + 1,
];

/// The target.
///
/// # Panics
///
/// When the decoder says something else than the slow one.
pub fn framing(data: &[u8]) {
    let mut input = Input::new(data);
    let limit = input.pick(&MESSAGE_BYTES_MAX);
    let wanted = input.pick(&WANTED);
    let cuts: [u8; 8] = input.array();
    let wire = if input.byte().is_multiple_of(2) { frames(&mut input) } else { input.rest().to_vec() };
    let expected = hear(&wire, limit, wanted);
    let sizes = cuts.iter().cycle().map(|cut| (1 << (cut & 0x0f)) + usize::from(cut >> 4));
    let mut sizes = sizes.take(CUT_READS_MAX);
    compare(&read(&wire, limit, wanted, &mut sizes), &expected);
    compare(&read(&wire, limit, wanted, &mut std::iter::repeat(usize::MAX)), &expected);
}

/// Who is wanted: all, none, or some.
const WANTED: [fn(&Header) -> bool; 3] = [|_| true, |_| false, |header| header.id % 2 == 0];

fn compare(heard: &Heard, expected: &Heard) {
    assert_eq!(heard.violation, expected.violation);
    let shown = |heard: &Heard| heard.messages.iter().map(|(header, _)| *header).collect::<Vec<_>>();
    assert_eq!(shown(heard), shown(expected));
    assert!(heard.messages == expected.messages, "a body has other bytes than came");
    assert_eq!(heard.asked, expected.asked);
    if expected.violation.is_none() {
        assert_eq!(heard.is_mid_message, expected.is_mid_message);
    }
}

/// Reads everything in steps of these sizes, as an owner of a socket does.
fn read(
    wire: &[u8],
    limit: u64,
    wanted: fn(&Header) -> bool,
    sizes: &mut dyn Iterator<Item = usize>,
) -> Heard {
    let mut frames = FrameBuffer::new(limit);
    let mut heard = Heard::default();
    let mut rest = wire;
    loop {
        loop {
            let asked = &mut heard.asked;
            let ask = |header: &Header| {
                asked.push((header.kind, header.id));
                wanted(header)
            };
            match frames.next_frame_ref_if(ask) {
                Ok(Some(frame)) => heard.messages.push((frame.header, frame.body.as_slice().to_vec())),
                Ok(None) => break,
                Err(violation) => {
                    assert_eq!(frames.next_frame(), Err(violation.clone()), "it is said ever after");
                    heard.violation = Some(violation);
                    return heard;
                }
            }
        }
        let size = sizes.next().unwrap_or(usize::MAX);
        let read = frames.read_from(|room| {
            assert!(room.len() >= READ_BUFFER_BYTES / 2, "{} bytes of room", room.len());
            let count = rest.len().min(room.len()).min(size);
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            Ok(count)
        });
        if read.expect("a slice can be read") == 0 {
            heard.is_mid_message = frames.is_mid_message();
            return heard;
        }
    }
}

/// One frame for each step, most of them good.
fn frames(input: &mut Input<'_>) -> Vec<u8> {
    let mut wire = Vec::new();
    while !input.is_empty() && wire.len() < WIRE_BYTES_MAX {
        let what = input.byte();
        let kind = match what {
            0xff => input.byte(),
            what => [Kind::Reply, Kind::Call, Kind::StreamData, Kind::Log][usize::from(what & 3)].to_wire(),
        };
        let (codec, epoch) = match what >> 2 & 7 {
            0 => (input.byte(), 0),
            1 => (1, input.byte()),
            _ => (1, 0),
        };
        let flags = input.byte();
        // Most often nothing, or that the message goes on.
        let (flags, descriptors) = if flags < 0x80 { (flags & 1, 0) } else { (flags & 0x7f, input.byte()) };
        let id = input.byte() & 0x7f;
        let form = input.byte();
        let length = match form & 0x0f {
            0 => usize::from(input.byte()),
            1 => input.u32() as usize,
            form => LENGTHS[usize::from(form) - 2],
        };
        let mut header = [0; HEADER];
        header[0..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        header[4..8].copy_from_slice(&[kind, codec, flags, descriptors]);
        header[8] = epoch;
        header[16] = id;
        header[24] = what;
        wire.extend(header);
        // Most often all of it; a part is most often the end of all that can be understood.
        let there = if form < 0xe0 { length } else { length.min(input.u16().into()) };
        let is_readable = length <= FRAME_BODY_BYTES_MAX as usize;
        let there = if is_readable { there } else { there.min(HEADER) };
        // No two places near each other are alike, so that what is out of place is seen.
        wire.extend((0..there).map(|at| (at ^ (at >> 8) ^ usize::from(id)).to_le_bytes()[0]));
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_byte_of_a_body_is_a_finding() {
        let mut wire = frames(&mut Input::new(&[0, 2, 0, 5, 5]));
        let expected = hear(&wire, u64::MAX, |_| true);
        assert_eq!(expected.messages.len(), 1);
        let last = wire.len() - 1;
        wire[last] ^= 1;
        let heard = read(&wire, u64::MAX, |_| true, &mut std::iter::repeat(100));
        assert!(std::panic::catch_unwind(|| compare(&heard, &expected)).is_err());
    }

    #[test]
    fn the_slow_one_knows_each_violation() {
        // More messages that are half received than may be.
        let partials: Vec<u8> = (0..65).flat_map(|id| [8, 1, id, 3]).collect();
        let rows: [(&[u8], &str); 4] = [
            (&[0xff, 99, 0, 0, 0], "Header(Kind(99))"),
            (&[0, 0, 0, 0, 3], "Frame {"),
            (&[8, 0, 0, 11], "MessageTooLarge {"),
            (&partials, "PartialMessages"),
        ];
        for (script, expected) in rows {
            let violation = hear(&frames(&mut Input::new(script)), 3000, |_| true).violation;
            let violation = format!("{:?}", violation.expect("it is one"));
            assert!(violation.starts_with(expected), "{script:?}: {violation}");
        }
    }
}
