//! The page of the documentation lists the options that there are, with the defaults that they have.

#[path = "common/page.rs"]
mod page;

use socketioxide_adapter_amqp::Queue;

#[test]
fn the_table_of_options_is_true() {
    let page = include_str!("../../docs/backends/amqp.md");
    let all = "amqps://h?nonsense=1&queue=durable";
    page::has_a_true_table::<Queue>(page, all, |name| {
        // What is only there for durable queues is judged for them.
        let durable = if name == "expires" {
            "queue=durable&"
        } else {
            ""
        };
        format!("amqp://h?{durable}")
    });
}
