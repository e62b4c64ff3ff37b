//! The page of the documentation lists the options that there are, with the defaults that they have.

#[path = "../../adapter-amqp/tests/common/page.rs"]
mod page;

use socketioxide_adapter_rabbitmq_streams::Stream;

#[test]
fn the_table_of_options_is_true() {
    let page = include_str!("../../docs/backends/rabbitmq-streams.md");
    let all = "amqps+streams://h?nonsense=1";
    page::has_a_true_table::<Stream>(page, all, |_| "amqp+streams://h?".to_owned());
}
