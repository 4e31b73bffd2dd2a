//! What is this cpu called? From `/proc/cpuinfo`, whose words differ from one architecture to the next.

use super::files::Files;

/// The cpu's name for people; on ARM, which gives none, its maker's and its part's number.
pub(super) fn read(files: &Files) -> Option<String> {
    let text = files.text("proc/cpuinfo")?;
    // x86, MIPS and LoongArch; POWER and s390; RISC-V.
    if let Some(name) = ["model name", "cpu model", "cpu", "processor 0", "uarch"]
        .iter()
        .find_map(|key| field(&text, key))
    {
        return Some(name.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let (maker, part) = (field(&text, "CPU implementer")?, field(&text, "CPU part")?);
    Some(format!("ARM implementer {maker} part {part}"))
}

/// The value of the first line `key : value`.
pub(super) fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let value = |line: &'a str| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    };
    text.lines()
        .find_map(value)
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::files::paper;

    fn model(cpuinfo: &str) -> Option<String> {
        read(&paper(&[("proc/cpuinfo", cpuinfo)]).1)
    }

    #[test]
    fn each_architecture_in_its_words() {
        let x86 =
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 2\nmodel name\t: AMD  EPYC 9\n";
        assert_eq!(model(x86).as_deref(), Some("AMD EPYC 9"));
        let arm = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert_eq!(
            model(arm).as_deref(),
            Some("ARM implementer 0x41 part 0xd0c")
        );
        assert_eq!(
            model("processor\t: 0\ncpu\t\t: POWER9, altivec supported\n").as_deref(),
            Some("POWER9, altivec supported")
        );
        assert_eq!(
            model("processor\t: 0\nuarch\t\t: sifive,u74-mc\n").as_deref(),
            Some("sifive,u74-mc")
        );
    }

    #[test]
    fn no_name_is_unknown() {
        for odd in ["", "processor\t: 0\n", "model name\t:\n", "CPU part: 1\n"] {
            assert_eq!(model(odd), None, "{odd}");
        }
    }
}
