// SPDX-License-Identifier: Apache-2.0
//! What a working day leaves is bounded, in number and on the disk.

use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;
use rustix::mount::{MountFlags, UnmountFlags};

use super::{Run, expect, require};
use crate::lab::{BASE, Context, Lab};

pub const ALL: &[(&str, Run)] = &[
    ("thirty_edits_leave_a_bounded_number_of_snapshots", thirty_edits),
    ("many_names_of_one_image_leave_no_trail", many_names),
    ("a_small_disk_stays_below_the_limit", small_disk),
];

fn thirty_edits(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/edits:1";
    let context = Context::new(&format!("FROM {BASE}\nCOPY file /file\nRUN cp /file /copy\n"));
    let ours = |lab: &Lab| -> Result<usize, Failed> {
        Ok(lab.ctr(&["snapshots", "ls"])?.lines().filter(|line| line.contains("Committed")).count())
    };
    let before = ours(lab)?;
    for edit in 0..30 {
        context.write("file", &format!("edit {edit}"));
        lab.build(name, &context, &[]).success()?;
    }
    lab.collect_garbage()?;
    let left = ours(lab)?.saturating_sub(before);
    // 10 results are kept, up to 5 more wait for the next pruning; each has two layers of its own.
    require(left <= 30, &format!("{left} snapshots are left of 60"))?;
    expect(lab.ctr(&["images", "ls", "-q", &format!("name=={name}")])?.lines().count(), 1)?;
    expect(&*lab.look(name, &["cat", "/copy"])?, "edit 29")?;
    // The last results are there to go back to.
    context.write("file", "edit 25");
    expect(lab.build(name, &context, &[]).success()?.steps().0, 0)
}

fn small_disk(lab: &Lab) -> Result<(), Failed> {
    const DISK_MIB: u64 = 256;
    const EDIT_MIB: usize = 8;
    let dir = tempfile::tempdir()?;
    let disk = SmallDisk::new(dir.path(), DISK_MIB)?;
    let small = Lab::start_in(lab, disk.path());
    let name = "shakedown.test/e2e/small:1";
    let context = Context::new(&format!("FROM {BASE}\nCOPY big /big\n"));
    let mut worst = 0;
    let mut built = Ok(());
    for edit in 0..40_u8 {
        std::fs::write(context.path().join("big"), vec![edit; EDIT_MIB << 20])?;
        built = small.build(name, &context, &[]).success().map(drop);
        if built.is_err() {
            break;
        }
        worst = worst.max(disk.used_percent()?);
    }
    let said = built.and_then(|()| small.look(name, &["sh", "-c", "head -c 1 /big | od -An -tu1"]));
    small.stop();
    disk.unmount()?;
    expect(said?.trim(), "39")?;
    // Unpinned at 75 %; collecting takes containerd a moment, so some builds may come in between.
    require(worst <= 85, &format!("the disk was {worst} % full at its worst"))
}

/// A file system of a few megabytes in a file.
struct SmallDisk {
    mount_point: std::path::PathBuf,
    device: String,
}

impl SmallDisk {
    fn new(dir: &Path, size_mib: u64) -> Result<Self, Failed> {
        let image = dir.join("disk");
        std::fs::File::create(&image)?.set_len(size_mib << 20)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image))?.trim().to_owned();
        let mount_point = dir.join("mnt");
        std::fs::create_dir(&mount_point)?;
        let mounted = rustix::mount::mount(&*device, &mount_point, "ext4", MountFlags::empty(), None);
        let disk = Self { mount_point, device };
        // The device goes by itself when the last mount of it goes, also when this process is killed.
        run(Command::new("losetup").args(["--detach", &disk.device]))?;
        mounted?;
        Ok(disk)
    }

    fn path(&self) -> &Path {
        &self.mount_point
    }

    fn used_percent(&self) -> Result<u64, Failed> {
        let stat = rustix::fs::statvfs(&self.mount_point)?;
        Ok((stat.f_blocks - stat.f_bfree) * 100 / stat.f_blocks)
    }

    fn unmount(&self) -> Result<(), Failed> {
        Ok(rustix::mount::unmount(&self.mount_point, UnmountFlags::empty())?)
    }
}

fn run(command: &mut Command) -> Result<String, Failed> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn many_names(lab: &Lab) -> Result<(), Failed> {
    // Two shapes: a layer of its own, and nothing but metadata on the base.
    for (shape, text) in ["RUN echo names > /names", "LABEL names=1"].iter().enumerate() {
        let context = Context::new(&format!("FROM {BASE}\n{text}\n"));
        let name = |number: usize| format!("shakedown.test/e2e/names-{shape}:{number}");
        for number in 0..6 {
            lab.build(&name(number), &context, &[]).success()?;
        }
        let info = lab.ctr(&["snapshots", "info", &lab.chain_id(&name(0))?])?;
        let references = info.lines().filter(|line| line.contains("gc.ref.content.image.")).count();
        require(references <= 2, &format!("{references} references for six names:\n{info}"))?;
        for number in 0..6 {
            require(lab.is_complete(&name(number))?, "its documents are held by its name")?;
        }
    }
    Ok(())
}
