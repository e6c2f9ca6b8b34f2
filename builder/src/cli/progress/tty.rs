// SPDX-License-Identifier: Apache-2.0
//! Progress on a terminal: finished steps scroll by as one line each, running ones stay below with their time and the
//! last lines of their output.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::time::Instant;

use super::Display;
use crate::engine::{Event, StepId, StepOutcome};

/// Lines of output shown below a running step.
const TAIL_LINES: usize = 4;
/// Lines of output shown of a step that failed.
const FAILED_LINES: usize = 20;

struct Running {
    title: String,
    since: Instant,
    unfinished: Vec<u8>,
    lines: VecDeque<String>,
}

/// Redraws the running steps in place.
pub struct Tty<W> {
    out: W,
    running: BTreeMap<StepId, Running>,
    /// Cached steps since the last other one; they are told as one line.
    cached: usize,
    drawn_lines: usize,
    width: Box<dyn Fn() -> usize + Send>,
}

impl<W: Write> Tty<W> {
    /// A display on the terminal `out`.
    pub fn new(out: W) -> Self {
        Self { out, running: BTreeMap::new(), cached: 0, drawn_lines: 0, width: Box::new(terminal_columns) }
    }

    /// A display of a fixed width, for tests.
    #[cfg(test)]
    fn with_width(out: W, columns: usize) -> Self {
        Self { width: Box::new(move || columns), ..Self::new(out) }
    }

    fn erase(&mut self) -> io::Result<()> {
        if self.drawn_lines > 0 {
            write!(self.out, "\x1b[{}A\x1b[J", self.drawn_lines)?;
            self.drawn_lines = 0;
        }
        Ok(())
    }

    fn draw(&mut self) -> io::Result<()> {
        let columns = (self.width)().max(20);
        for running in self.running.values() {
            let time = format!("{:6.1}s ", running.since.elapsed().as_secs_f64());
            writeln!(self.out, "\x1b[1m{time}{}\x1b[0m", cut(&running.title, columns - time.len()))?;
            self.drawn_lines += 1;
            let skipped = running.lines.len().saturating_sub(TAIL_LINES);
            for line in running.lines.iter().skip(skipped) {
                writeln!(self.out, "\x1b[2m        {}\x1b[0m", cut(line, columns - 8))?;
                self.drawn_lines += 1;
            }
        }
        self.out.flush()
    }

    fn settle_cached(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.cached) {
            0 => Ok(()),
            1 => writeln!(self.out, " cached  1 step"),
            count => writeln!(self.out, " cached  {count} steps"),
        }
    }

    fn end(&mut self, step: StepId, outcome: StepOutcome, seconds: f64) -> io::Result<()> {
        let Some(mut ended) = self.running.remove(&step) else { return Ok(()) };
        if outcome == StepOutcome::Cached {
            self.cached += 1;
            return Ok(());
        }
        self.settle_cached()?;
        let columns = (self.width)().max(20);
        let mark = match outcome {
            StepOutcome::Failed => "\x1b[31m failed \x1b[0m".to_owned(),
            StepOutcome::Cancelled => " ended  ".to_owned(),
            StepOutcome::Executed | StepOutcome::Cached => format!("{seconds:6.1}s "),
        };
        writeln!(self.out, "{mark}{}", cut(&ended.title, columns - 8))?;
        if outcome == StepOutcome::Failed {
            if !ended.unfinished.is_empty() {
                ended.lines.push_back(String::from_utf8_lossy(&ended.unfinished).into_owned());
            }
            for line in ended.lines {
                writeln!(self.out, "        {line}")?;
            }
        }
        Ok(())
    }
}

impl<W: Write + Send> Display for Tty<W> {
    fn show(&mut self, event: Event) -> io::Result<()> {
        self.erase()?;
        match event {
            Event::StepStarted { step, title } => {
                let running =
                    Running { title, since: Instant::now(), unfinished: Vec::new(), lines: VecDeque::new() };
                self.running.insert(step, running);
            }
            Event::StepOutput { step, bytes, .. } => {
                if let Some(running) = self.running.get_mut(&step) {
                    running.unfinished.extend_from_slice(&bytes);
                    while let Some(end) = running.unfinished.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = running.unfinished.drain(..=end).collect();
                        running.lines.push_back(printable(&line));
                        if running.lines.len() > FAILED_LINES {
                            running.lines.pop_front();
                        }
                    }
                }
            }
            Event::StepEnded { step, outcome, took } => self.end(step, outcome, took.as_secs_f64())?,
            Event::Notice(text) => {
                self.settle_cached()?;
                writeln!(self.out, " notice  {text}")?;
            }
            Event::Finished { name, image_id, visible, .. } => {
                self.settle_cached()?;
                let seen = if visible { ", visible to pods" } else { "" };
                writeln!(self.out, "\x1b[32m  built\x1b[0m  {name} {}{seen}", image_id.short())?;
            }
        }
        self.draw()
    }

    fn tick(&mut self) -> io::Result<()> {
        if self.running.is_empty() {
            return Ok(());
        }
        self.erase()?;
        self.draw()
    }

    fn close(&mut self) -> io::Result<()> {
        self.erase()?;
        self.settle_cached()?;
        self.out.flush()
    }
}

/// One line without its end and without control characters, which would move the cursor.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let last = text.trim_end_matches(['\n', '\r']).rsplit('\r').next().unwrap_or_default().to_owned();
    last.replace('\t', "    ").chars().filter(|letter| !letter.is_control()).collect()
}

fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(columns.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The width of the terminal on standard error; 80 where it can't be told.
fn terminal_columns() -> usize {
    rustix::termios::tcgetwinsize(io::stderr()).map_or(80, |size| match size.ws_col {
        0 => 80,
        columns => usize::from(columns),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::OutputStream;

    fn ended(step: usize, outcome: StepOutcome) -> Event {
        Event::StepEnded { step: StepId(step), outcome, took: Duration::from_millis(300) }
    }

    fn started(step: usize, title: &str) -> Event {
        Event::StepStarted { step: StepId(step), title: title.to_owned() }
    }

    #[test]
    fn cached_steps_fold_and_a_failure_keeps_its_last_lines() {
        let mut out = Vec::new();
        let mut tty = Tty::with_width(&mut out, 40);
        let bytes = (0..30).map(|line| format!("line {line}\n")).collect::<String>().into_bytes();
        for event in [
            started(1, "FROM base"),
            ended(1, StepOutcome::Cached),
            started(2, "COPY . ."),
            ended(2, StepOutcome::Cached),
            started(3, "RUN false"),
            Event::StepOutput { step: StepId(3), stream: OutputStream::Stdout, bytes },
            ended(3, StepOutcome::Failed),
        ] {
            tty.show(event).unwrap();
        }
        tty.close().unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(" cached  2 steps\n"), "{text}");
        assert!(text.contains("        line 29\n") && text.contains("        line 10\n"));
        let last_frame = text.rsplit("\x1b[J").next().unwrap();
        assert!(!last_frame.contains("line 9\n"), "{last_frame}");
    }

    #[test]
    fn a_carriage_return_and_colours_cannot_break_the_display() {
        assert_eq!(printable(b"10%\r20%\r\n"), "20%");
        assert_eq!(printable(b"\x1b[2Ka\tb\n"), "[2Ka    b");
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
