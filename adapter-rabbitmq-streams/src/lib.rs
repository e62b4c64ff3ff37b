//! RabbitMQ stream transport for socketioxide-adapter: gives back what a node missed.
