//! Tables as Markdown has them, which a terminal shows well too.

/// A figure that is to stay below a limit.
pub struct Target {
    pub what: String,
    pub measured: f64,
    pub limit: f64,
}

impl Target {
    pub fn new(what: impl Into<String>, measured: f64, limit: f64) -> Self {
        Self { what: what.into(), measured, limit }
    }
}

/// Which targets hold.
pub fn summary(targets: &[Target]) {
    let mut table = Table::new("Targets", &["measured", "at most", ""]);
    for target in targets {
        let verdict = if target.measured <= target.limit { "holds" } else { "MISSED" };
        table.row(&target.what, &[format!("{:.2}", target.measured), format!("{:.2}", target.limit), verdict.to_owned()]);
    }
    table.print();
}

/// A table with a name in the first column and figures in the others.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(title: &str, columns: &[&str]) -> Self {
        let header = std::iter::once(title).chain(columns.iter().copied()).map(str::to_owned).collect();
        Self { rows: vec![header] }
    }

    pub fn row(&mut self, name: &str, figures: &[String]) {
        self.rows.push(std::iter::once(name.to_owned()).chain(figures.iter().cloned()).collect());
    }

    pub fn print(&self) {
        let widths: Vec<usize> =
            (0..self.rows[0].len()).map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap().max(2)).collect();
        println!();
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> =
                row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| align(cell, width, column)).collect();
            println!("| {} |", cells.join(" | "));
            if number == 0 {
                let rules: Vec<String> = widths.iter().enumerate().map(|(column, &width)| rule(width, column)).collect();
                println!("| {} |", rules.join(" | "));
            }
        }
    }
}

fn align(cell: &str, width: usize, column: usize) -> String {
    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
}

fn rule(width: usize, column: usize) -> String {
    if column == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width - 1)) }
}
