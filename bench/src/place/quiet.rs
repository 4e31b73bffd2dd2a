//! Which cpu is quiet? A short look at those that could be taken.

/// Looks in rounds of two cpus at once; see [`crate::jitter`] for why. An odd one out has the first beside it.
#[must_use]
pub(crate) fn rounds(cpus: &[u32]) -> Vec<Vec<u32>> {
    let mut rounds: Vec<Vec<u32>> = cpus.chunks(2).map(<[u32]>::to_vec).collect();
    if let (Some(last), Some(&first)) = (rounds.last_mut(), cpus.first())
        && last.len() == 1
        && last[0] != first
    {
        last.push(first);
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_has_one_beside_it_where_there_are_two() {
        assert_eq!(rounds(&[0, 1]), [[0, 1]]);
        assert_eq!(rounds(&[2, 3, 5]), [[2, 3], [5, 2]]);
        assert_eq!(rounds(&[7]), [[7]]);
        assert!(rounds(&[]).is_empty());
    }
}
