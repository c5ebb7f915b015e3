//! Whether a file can be executed: what execve(2) would say of it, found out without executing it.
//!
//! The kernel's rules are those of its `fs/exec.c`, `binfmt_script.c`, `binfmt_elf.c` and `binfmt_misc.c`. What cannot be told
//! counts as a program: its start tells.

use rustix::fs::{Access, access};
use std::fmt::Display;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the kernel looks at to see what a file is.
const HEAD: usize = 256;
/// Interpreters of interpreters, at most.
const DEPTH: u32 = 5;
/// Where the administrator has named interpreters for files of other kinds.
const OTHER_KINDS: &str = "/proc/sys/fs/binfmt_misc";

/// Says why a program could not be executed by the user that this runs as. It may be gone later, but mostly it is what was
/// configured. Reads from the disk.
///
/// # Errors
/// The reason, in words that follow the program's name.
pub fn check(program: &Path) -> Result<(), String> {
    let folder = program.parent().unwrap_or(Path::new("/"));
    check_file(program, folder, DEPTH)
}

fn check_file(path: &Path, folder: &Path, depth: u32) -> Result<(), String> {
    let failed = |why: &dyn Display| format!("cannot be run: {why}");
    access(path, Access::EXEC_OK).map_err(|why| failed(&why))?;
    if !fs::metadata(path).map_err(|why| failed(&why))?.is_file() {
        return Err(failed(&"it is not a file"));
    }
    // What may be executed need not be readable.
    let Ok(file) = File::open(path) else { return Ok(()) };
    let mut head = [0; HEAD];
    let count = read(&file, &mut head, 0);
    let found = if let Some(line) = head.strip_prefix(b"#!") {
        script(line, folder, depth)
    } else if head.starts_with(b"\x7fELF") {
        elf(&file, &head, folder)
    } else if count == 0 {
        Err("it is empty".to_owned())
    } else {
        Err("it is neither a program nor a script that begins with #!".to_owned())
    };
    found.or_else(|why| if is_of_another_kind(path, &head) { Ok(()) } else { Err(failed(&why)) })
}

/// Reads until the file or the buffer ends; yields how much.
fn read(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut count = 0;
    while let Ok(more @ 1..) = file.read_at(&mut buffer[count..], offset + count as u64) {
        count += more;
    }
    count
}

/// `line`: what follows the `#!`, with zeros behind the end of the file.
fn script(line: &[u8], folder: &Path, depth: u32) -> Result<(), String> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let is_end = |byte: &u8| is_blank(byte) || *byte == 0;
    let none = || "it names no interpreter after its #!".to_owned();
    let line = line.iter().position(|byte| *byte == b'\n').map_or(line, |end| &line[..end]);
    let begin = line.iter().position(|byte| !is_blank(byte)).ok_or_else(none)?;
    let name = &line[begin..];
    let is_whole = line.len() < HEAD - 2;
    let end = name.iter().position(is_end).or(is_whole.then_some(name.len()));
    let name = &name[..end.ok_or("the name of its interpreter is too long")?];
    if name.is_empty() {
        return Err(none());
    }
    if depth == 0 {
        return Err("it has too many interpreters".into());
    }
    let interpreter = folder.join(Path::new(std::ffi::OsStr::from_bytes(name)));
    check_file(&interpreter, folder, depth - 1).map_err(|why| format!("its interpreter {interpreter:?} {why}"))
}

/// Numbers of machines in ELF headers that run on one that this is compiled for, and whether with words of 64 bits; empty:
/// it is not known.
const MACHINES: &[(u16, bool)] = if cfg!(target_arch = "x86_64") {
    &[(62, true), (62, false), (3, false)]
} else if cfg!(target_arch = "aarch64") {
    &[(183, true), (40, false)]
} else {
    &[]
};

fn elf(file: &File, head: &[u8; HEAD], folder: &Path) -> Result<(), String> {
    let broken = || "it is a damaged program".to_owned();
    let is_wide = head[4] == 2;
    let is_little = head[5] != 2;
    let number = |bytes: &[u8]| {
        let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        if is_little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
    };
    let short = |at: usize| number(&head[at..at + 2]);
    // Executable, or position-independent.
    if ![2, 3].contains(&short(16)) {
        return Err("it is a part of a program, not a program".into());
    }
    let machine = short(18);
    let is_ours = MACHINES.iter().any(|(known, wide)| (u64::from(*known), *wide) == (machine, is_wide)) && is_little;
    if !is_ours && !MACHINES.is_empty() {
        return Err(format!("it is a program for another machine (number {machine} in ELF headers)"));
    }
    let (table, size, count) = if is_wide {
        (number(&head[32..40]), short(54), short(56))
    } else {
        (number(&head[28..32]), short(42), short(44))
    };
    let expected = if is_wide { 56 } else { 32 };
    if size != expected || count == 0 {
        return Err(broken());
    }
    for place in 0..count {
        let mut entry = [0; 56];
        let entry = &mut entry[..expected as usize];
        let at = table.checked_add(place * expected).ok_or_else(broken)?;
        if read(file, entry, at) < entry.len() {
            return Err(broken());
        }
        // PT_INTERP: who loads it.
        if number(&entry[..4]) != 3 {
            continue;
        }
        let (at, length) = if is_wide {
            (number(&entry[8..16]), number(&entry[32..40]))
        } else {
            (number(&entry[4..8]), number(&entry[16..20]))
        };
        if !(2..=4096).contains(&length) {
            return Err(broken());
        }
        let mut name = vec![0; length as usize];
        if read(file, &mut name, at) < name.len() || name.last() != Some(&0) {
            return Err(broken());
        }
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let loader = folder.join(Path::new(std::ffi::OsStr::from_bytes(name)));
        access(&loader, Access::EXEC_OK).map_err(|why| format!("its loader {loader:?} cannot be run: {why}"))?;
    }
    Ok(())
}

/// True for what binfmt_misc has an interpreter for.
fn is_of_another_kind(path: &Path, head: &[u8; HEAD]) -> bool {
    let Ok(entries) = fs::read_dir(OTHER_KINDS) else { return false };
    entries.flatten().any(|entry| {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        is_kind(&text, path, head)
    })
}

/// True for what an entry of binfmt_misc describes.
fn is_kind(entry: &str, path: &Path, head: &[u8; HEAD]) -> bool {
    let field = |name: &str| {
        let mut fields = entry.lines().filter_map(|line| line.split_once(' '));
        fields.find(|(known, _)| *known == name).map(|(_, value)| value)
    };
    if entry.lines().next() != Some("enabled") {
        return false;
    }
    if let Some(extension) = field("extension") {
        return path.extension().is_some_and(|own| Some(own.as_bytes()) == extension.as_bytes().strip_prefix(b"."));
    }
    let (Some(magic), Some(offset)) = (field("magic").and_then(bytes), field("offset")) else { return false };
    let mask = field("mask").and_then(bytes).unwrap_or_else(|| vec![0xff; magic.len()]);
    let there = offset.parse().ok().and_then(|offset: usize| head.get(offset..)?.get(..magic.len()));
    there.is_some_and(|there| {
        there.iter().zip(&magic).zip(&mask).all(|((byte, magic), mask)| (byte ^ magic) & mask == 0)
    })
}

/// Of hexadecimal digits.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::{Command, Stdio};

    /// The system's own word, by which this is measured.
    fn runs(path: &Path) -> bool {
        let mut command = Command::new(path);
        command.current_dir(path.parent().unwrap()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        loop {
            match command.spawn() {
                Ok(mut child) => {
                    child.wait().unwrap();
                    return true;
                }
                // Another test has started a program while this file was written.
                Err(why) if why.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                Err(_) => return false,
            }
        }
    }

    #[test]
    fn it_says_what_the_system_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, bytes: &[u8], mode: u32| {
            fs::write(path(name), bytes).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        let program = fs::read("/bin/true").unwrap();
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut program = program.clone();
            change(&mut program);
            program
        };
        let long = |length: usize| format!("#!/{}\nexit 0\n", "x".repeat(length)).into_bytes();
        let itself = format!("#!{}\n", path("itself").display());
        let scripted = format!("#!{}\n", path("script").display());
        let deep = |name: &str| format!("#!{}\n", path(name).display()).into_bytes();
        let cases: Vec<(&str, Vec<u8>, bool)> = vec![
            ("script", b"#!/bin/sh\nexit 0\n".to_vec(), true),
            ("blanks", b"#! \t /bin/sh\t-e \nexit 0\n".to_vec(), true),
            ("cut", b"#!/bin/sh".to_vec(), true),
            ("empty", vec![], false),
            ("text", b"exit 0\n".to_vec(), false),
            ("nobody", b"#!\nexit 0\n".to_vec(), false),
            ("blank", b"#!  \nexit 0\n".to_vec(), false),
            ("only", b"#!".to_vec(), false),
            ("from_windows", b"#!/bin/sh\r\nexit 0\r\n".to_vec(), false),
            ("away", b"#!/nowhere/interpreter\n".to_vec(), false),
            ("folder", b"#!/tmp\n".to_vec(), false),
            ("data", b"#!/etc/passwd\n".to_vec(), false),
            ("near", b"#!script\n".to_vec(), true),
            ("long", long(300), false),
            ("spaces", [b"#!".to_vec(), vec![b' '; 300], b"/bin/sh\n".to_vec()].concat(), false),
            ("itself", itself.into_bytes(), false),
            ("by_script", scripted.into_bytes(), true),
            ("deep3", deep("by_script"), true),
            ("deep4", deep("deep3"), true),
            ("deep5", deep("deep4"), true),
            ("deep6", deep("deep5"), false),
            ("program", program.clone(), true),
            ("head", program[..60].to_vec(), false),
            ("no_table", program[..100].to_vec(), false),
            ("part", changed(&|program| program[16] = 1), false),
            ("machine", changed(&|program| program[18] = 243), false),
            ("table", changed(&|program| program[54] = 1), false),
            ("nothing", changed(&|program| program[56] = 0), false),
            ("far", changed(&|program| program[39] = 0x7f), false),
            (
                "loader",
                changed(&|program| {
                    let at = program.windows(4).position(|bytes| bytes == b"/lib").unwrap();
                    program[at + 1] = b'L';
                }),
                false,
            ),
        ];
        for (name, bytes, expected) in &cases {
            write(name, bytes, 0o755);
            let said = check(&path(name));
            assert_eq!((said.is_ok(), runs(&path(name))), (*expected, *expected), "{name}: {said:?}");
        }
        write("plain", b"#!/bin/sh\n", 0o644);
        symlink("script", path("link")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        fs::create_dir(path("dir")).unwrap();
        for (name, expected) in [("plain", false), ("link", true), ("dangling", false), ("dir", false), ("gone", false)]
        {
            let said = check(&path(name));
            assert_eq!((said.is_ok(), runs(&path(name))), (expected, expected), "{name}: {said:?}");
        }
        assert!(check(Path::new("/dev/null")).is_err());
        let said = check(&path("away")).unwrap_err();
        assert!(said.contains("its interpreter \"/nowhere/interpreter\" cannot be run: No such file"), "{said}");
    }

    #[test]
    fn other_kinds_are_told_by_their_names_and_bytes() {
        let mut head = [0; HEAD];
        head[..6].copy_from_slice(b"PK\x03\x04ab");
        let is = |entry: &str| is_kind(entry, Path::new("/opt/program.jar"), &head);
        for yes in [
            "enabled\ninterpreter /usr/bin/jexec\nflags: \noffset 0\nmagic 504b0304\n",
            "enabled\ninterpreter /x\nflags: OC\noffset 1\nmagic 4bff\nmask ff00\n",
            "enabled\ninterpreter /x\nflags: \nextension .jar\n",
        ] {
            assert!(is(yes), "{yes}");
        }
        for no in [
            "disabled\ninterpreter /x\nflags: \noffset 0\nmagic 504b0304\n",
            "enabled\ninterpreter /x\nflags: \noffset 0\nmagic 504b0305\n",
            "enabled\ninterpreter /x\nflags: \noffset 300\nmagic 504b\n",
            "enabled\ninterpreter /x\nflags: \nextension .exe\n",
            "enabled\n",
            "",
        ] {
            assert!(!is(no), "{no}");
        }
    }
}
