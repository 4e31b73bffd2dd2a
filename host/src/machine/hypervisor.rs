//! Is this a virtual machine, and whose? From the cpu's own flag, the clocks on offer and the firmware's
//! words, none of which needs privileges.

use super::{cpu_model::field, files::Files};

/// `none` on bare metal, a name, or `unknown` for a hypervisor without one; `None` where there is no
/// sign either way.
pub(super) fn read(files: &Files) -> Option<String> {
    let x86_flags = files
        .text("proc/cpuinfo")
        .and_then(|text| field(&text, "flags").map(str::to_owned));
    if x86_flags
        .as_ref()
        .is_some_and(|flags| !flags.split_whitespace().any(|flag| flag == "hypervisor"))
    {
        return Some("none".to_owned());
    }
    match (name(files), x86_flags) {
        (Some(name), _) => Some(name),
        (None, Some(_)) => Some("unknown".to_owned()),
        (None, None) => None,
    }
}

fn name(files: &Files) -> Option<String> {
    if files.text("sys/hypervisor/type").as_deref() == Some("xen") {
        return Some("Xen".to_owned());
    }
    let signs = [
        "sys/devices/system/clocksource/clocksource0/available_clocksource",
        "sys/class/dmi/id/sys_vendor",
        "sys/class/dmi/id/product_name",
        "proc/device-tree/hypervisor/compatible",
    ];
    let signs: String = signs
        .iter()
        .filter_map(|path| files.text(path))
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase();
    let known = [
        ("vmware", "VMware"),
        ("virtualbox", "VirtualBox"),
        ("hyperv", "Hyper-V"),
        ("microsoft corporation virtual machine", "Hyper-V"),
        ("kvm", "KVM"),
        ("qemu", "QEMU"),
    ];
    known
        .iter()
        .find(|(sign, _)| signs.contains(sign))
        .map(|(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::files::paper;

    const CLOCKS: &str = "sys/devices/system/clocksource/clocksource0/available_clocksource";

    fn seen(contents: &[(&str, &str)]) -> Option<String> {
        read(&paper(contents).1)
    }

    #[test]
    fn signs_are_read_in_order() {
        let guest = ("proc/cpuinfo", "flags\t: fpu hypervisor lm\n");
        let metal = ("proc/cpuinfo", "flags\t: fpu lm\n");
        assert_eq!(
            seen(&[guest, (CLOCKS, "tsc kvm-clock \n")]).as_deref(),
            Some("KVM")
        );
        assert_eq!(
            seen(&[guest, ("sys/hypervisor/type", "xen\n")]).as_deref(),
            Some("Xen")
        );
        assert_eq!(
            seen(&[guest, ("sys/class/dmi/id/sys_vendor", "VMware, Inc.\n")]).as_deref(),
            Some("VMware")
        );
        assert_eq!(seen(&[guest]).as_deref(), Some("unknown"));
        // The firmware of a rented machine speaks of its owner on bare metal, too.
        assert_eq!(
            seen(&[metal, ("sys/class/dmi/id/product_name", "KVM\n")]).as_deref(),
            Some("none")
        );
        assert_eq!(
            seen(&[("proc/device-tree/hypervisor/compatible", "linux,kvm\0")]).as_deref(),
            Some("KVM")
        );
        assert_eq!(seen(&[]), None);
    }
}
